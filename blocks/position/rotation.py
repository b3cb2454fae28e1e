"""Turning pairs of channels by angles: what all rotary positions share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pairing = Literal["interleaved", "half"]
"""Which channels turn together: neighbours (Su et al.), or i and i + width / 2 (GPT-NeoX, Llama)."""


def frequencies(width: int, base: float, like: Tensor) -> Tensor:
    """Radians per token of each of ``width / 2`` pairs, from 1 down to nearly 1 / ``base``; at ``like``'s dtype."""
    return base ** -(torch.arange(0, width, 2, device=like.device, dtype=like.dtype) / width)


def tables(angle: Tensor, pairing: Pairing, dtype: torch.dtype, stretch: Tensor | float = 1.0) -> tuple[Tensor, ...]:
    """What ``turn`` multiplies by. Angles (..., C / 2); ``stretch`` makes the turned pairs longer."""
    if pairing == "interleaved" and not torch.compiler.is_compiling():
        return (torch.polar(torch.ones_like(angle), angle) * stretch,)
    cos, sin = (angle.cos() * stretch).to(dtype), (angle.sin() * stretch).to(dtype)
    if pairing == "interleaved":
        return cos, sin
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def turn(x: Tensor, tables: tuple[Tensor, ...], pairing: Pairing, width: int) -> Tensor:
    """Turn the first ``width`` channels; the rest stay. (..., K) -> (..., K)

    Neighbours turn as complex numbers (one pass over memory, where sines and cosines take four), which the
    compiler does not know and fuses anyway.
    """
    if width < x.shape[-1]:
        turned = turn(x[..., :width], tables, pairing, width)
        return torch.cat([turned, x[..., width:]], dim=-1)
    if pairing == "half":
        return torch.addcmul(x * tables[0], x.roll(width // 2, dims=-1), tables[1])
    if tables[0].is_complex():
        return torch.view_as_real(_pairs(x, tables[0].real.dtype) * tables[0]).flatten(-2).to(x.dtype)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = tables
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


def _pairs(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Neighbouring channels as complex numbers, a view where strides allow it. (..., C) -> (..., C / 2)"""
    x = x.to(dtype).unflatten(-1, (-1, 2))
    if x.storage_offset() % 2 or any(stride % 2 for stride in x.stride()[:-1]):
        x = x.contiguous()
    return torch.view_as_complex(x)
