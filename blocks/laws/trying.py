"""What blocks are tried on, and how a law says that one is broken.

Blocks are judged in float64 where exactness is meant: there ``EXACT`` tells right from wrong.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import PAD, Layout, Memory, Mixer

EXACT = 1e-9
"""Largest difference, relative to the largest value, between two ways to compute one thing in float64."""

BF16 = 0.06
"""Largest error of bfloat16, as the norm of the difference over the norm of the float64 result."""

QUIET = 0.2
"""The size of tokens where each must reach others: of large ones, attention without a scale sees only itself."""

B, T, D, V = 3, 13, 64, 29


class Broken(AssertionError):  # noqa: N818  (an adjective, as in a broken law)
    """A block that does not keep a law. The message says how."""


def hold(condition: Any, sentence: str) -> None:
    if not condition:
        raise Broken(sentence)


def agree(got: Tensor, expected: Tensor, what: str, tolerance: float = EXACT) -> None:
    hold(got.shape == expected.shape, f"{what}: the shape must be {tuple(expected.shape)}, but is {tuple(got.shape)}.")
    if got.numel() == 0:
        return
    hold(got.isfinite().all(), f"{what}: every number must be finite, but some are not.")
    off = (got - expected).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    hold(off <= tolerance * scale, f"{what}: must agree to {tolerance:.0e}, but differ by {off:.2e}.")


def dtype_and_device(block: nn.Module) -> dict[str, Any]:
    """The dtype and device of a block; float64 for one without parameters."""
    for tensor in itertools.chain(block.parameters(), block.buffers()):
        if tensor.is_floating_point():
            return {"dtype": tensor.dtype, "device": tensor.device}
    return {"dtype": torch.float64, "device": torch.get_default_device()}


def draw(block: nn.Module, *shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that are the same on every device and in every dtype, up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(**dtype_and_device(block))


def tree(rows: int, length: int, device: Any) -> Tensor:
    """Heads of a dependency tree in each row: each token hangs on an earlier one or (the first) on itself."""
    generator = torch.Generator().manual_seed(7)
    chance = torch.rand(rows, length, generator=generator)
    return (chance * torch.arange(length)).floor().long().to(device)


def full(block: nn.Module, rows: int = B, length: int = T) -> Layout:
    device = dtype_and_device(block)["device"]
    return Layout.full(rows, length, device)._replace(heads=tree(rows, length, device))


def with_padding(layout: Layout, before: int, after: int) -> Layout:
    """``layout`` with padding on both sides."""

    def pad(t: Tensor) -> Tensor:
        return nn.functional.pad(t, (before, after), value=PAD)

    heads = None if layout.heads is None else pad(layout.heads)
    return Layout(pad(layout.position), pad(layout.document), heads=heads)


def beside(*layouts: Layout) -> Layout:
    """Documents of several layouts side by side in one row."""
    document = torch.cat([torch.full_like(one.document, i) for i, one in enumerate(layouts)], dim=1)
    heads = torch.cat([one.heads for one in layouts if one.heads is not None], dim=1)
    return Layout(torch.cat([one.position for one in layouts], dim=1), document, heads=heads)


def run(mixer: Mixer[Any], x: Tensor, layout: Layout, memory: Memory | None = None) -> Tensor:
    y, _ = mixer(x, layout, None, memory)
    return y


def stirred(block: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with every parameter a little off: one that starts at zero still passes on what it multiplies."""
    block = copy.deepcopy(block)
    with torch.no_grad():
        for number, p in enumerate(block.parameters()):
            p.add_(0.03 * draw(block, *p.shape, seed=1000 * seed + number))
    return block


def unreached(parameter: nn.Parameter) -> bool:
    return parameter.grad is None or not bool(parameter.grad.any())
