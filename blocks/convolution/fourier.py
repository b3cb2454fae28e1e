"""FNet: the real part of a Fourier transform over the features and over the tokens; nothing is learned.

Lee-Thorp et al. 2021, https://arxiv.org/abs/2105.03824
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State
from blocks.lines import exact, exactly
from registry import register


@register("convolution/fourier")
class Fourier(Mixer[State]):
    """Mixes every token with every other by a Fourier transform of each document.

    Rows of one document take the fast transform. Padded or packed rows take each document's own transform
    as one matrix product over pairs of tokens, which costs T^2.

    Args:
        scaling: unitary keeps the size of the stream; none, as published, lets it grow as sqrt(T D).

    Raises:
        ValueError: The mask is not plainly full.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, scaling: Literal["unitary", "none"] = "unitary") -> None:
        super().__init__(d_model, mask)
        if not mask.plain or mask.causal:
            raise ValueError(
                f"mask must be full for {type(self).__name__}, which mixes every token with every other, "
                f"but got {type(mask).__name__}."
            )
        self.norm = "ortho" if scaling == "unitary" else "backward"

    def forward(
        self, x: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        with exactly(x.device):
            if layout.dense:
                return torch.fft.fft2(exact(x), dim=(1, 2), norm=self.norm).real.to(x.dtype), None
            cos, sin = layout.once((_pairs, self.norm), lambda: _pairs(layout, self.norm))
            features = torch.fft.fft(exact(x), dim=2, norm=self.norm)
            return (cos.to(features.real.dtype) @ features.real + sin.to(features.real.dtype) @ features.imag).to(
                x.dtype
            ), None

    def empty_state(self, rows: int, capacity: int) -> State:
        raise ValueError(f"mask must be causal to go on from a state, but this {type(self).__name__} reads both ways.")

    def cost(self, length: int) -> Cost:
        return Cost(parameters=0, flops=0, state_bytes=0, steps=_butterflies(length))  # they are no matrix products

    def path(self, distance: int, length: int) -> Path:
        return Path(1, _butterflies(length))


def _butterflies(length: int) -> int:
    """How many rounds of sums follow one another in the transform of a row."""
    return max(1, (length - 1).bit_length())


def _pairs(layout: Layout, norm: str) -> tuple[Tensor, Tensor]:
    """What turns each token into each other one of its document, as cosine and sine. (B, T, T) each, float64"""
    same = (layout.document[:, :, None] == layout.document[:, None]) & layout.real[:, None]
    length = same.sum(-1, keepdim=True).clamp_min(1)
    turns = layout.position[:, :, None] * layout.position[:, None] % length  # whole turns leave no rounding
    angle = 2 * math.pi * turns.double() / length
    weight = same / length.double().sqrt() if norm == "ortho" else same.double()
    return angle.cos() * weight, angle.sin() * weight
