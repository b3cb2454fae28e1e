"""Products of many tokens with one weight, on processors where torch's own product is slow.

Torch multiplies float32 matrices with MKL, which has no AVX-512 for processors that Intel did not make. oneDNN has,
and torch's convolutions use it: a convolution of width 1 is the same product. (Measured on an AMD EPYC with Zen 5
cores, 2,048 tokens, 384 to 1,024 features: forward 192 against 410 GFLOP/s, with backward 170 against 325.)
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 1 << 25
"""Fewer multiplications than this are not worth a convolution's start."""


class Linear(nn.Linear):
    """``nn.Linear``, by the faster of the two libraries."""

    def forward(self, x: Tensor) -> Tensor:
        return project(x, self.weight, self.bias)


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What ``F.linear`` gives. (..., D), (E, D), (E,) -> (..., E)"""
    if not AT_HALF_SPEED or not _suits(x, weight):
        return F.linear(x, weight, bias)
    image = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # (1, D, N, 1), channels last in memory
    y = F.conv2d(image, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def quicken(model: nn.Module) -> None:
    """Let every ``nn.Linear`` of a model, whoever wrote it, be a ``Linear`` where that is faster."""
    if AT_HALF_SPEED:
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= FEW
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # inductor chooses for itself
    )


def _at_half_speed() -> bool:
    """Torch multiplies with MKL on a processor with AVX-512 that MKL does not use it on."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    cpus = Path("/proc/cpuinfo")
    maker = cpus.read_text(encoding="utf-8") if cpus.exists() else platform.processor()
    return "AuthenticAMD" in maker


AT_HALF_SPEED = _at_half_speed()
