"""Each channel mixed with its last few tokens: the short convolution in front of a fast memory.

Gu and Dao 2023, https://arxiv.org/abs/2312.00752
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import Layout, State, declare


@dataclass(frozen=True, slots=True)
class Convolved(State):
    """The sum of the key-value products so far, and the last tokens that the convolution has to see again."""

    s: Tensor  # (B, H, K, V), float32 at least
    tail: Tensor  # (B, conv_size - 1, channels)


class ShortConvolution(nn.Module):
    """A causal convolution of each channel by itself, then SiLU. Real tokens stand side by side (see ``aligned``)."""

    def __init__(self, channels: int, size: int, *, bias: bool = False) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"conv_size must be at least 1, the token itself, but got {size}.")
        bound = size**-0.5
        self.weight = nn.Parameter(torch.empty(size, channels).uniform_(-bound, bound))  # [j] is for j tokens back
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None
        declare(self, weight="matrix", bias="bias")

    def forward(self, x: Tensor, layout: Layout, tail: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) -> (B, T, C), and the new tail if there was one."""
        length, before = x.shape[1], len(self.weight) - 1
        z = x if tail is None or layout.dense else torch.cat([tail, x], 1)
        dtype = torch.promote_types(z.dtype, self.weight.dtype)
        position = None if layout.dense else layout.position[..., None]
        by_hand = torch.is_grad_enabled() and not torch.compiler.is_compiling()  # a compiler fuses it all anyway
        taps = _Taps.apply if by_hand else _taps
        y = taps(z.to(dtype), self.weight.to(dtype), position, length)
        y = nn.functional.silu(y if self.bias is None else y.add_(self.bias))

        if tail is not None:
            last = layout.real.sum(1)[:, None] + torch.arange(before, device=x.device)
            z = nn.functional.pad(z, (0, 0, length + before - z.shape[1], 0))
            tail = z.gather(1, last[..., None].expand(-1, -1, x.shape[2]))
        return y, tail

    def empty_tail(self, rows: int) -> Tensor:
        return self.weight.new_zeros(rows, *self.weight[1:].shape)


def _taps(z: Tensor, weight: Tensor, position: Tensor | None, length: int) -> Tensor:
    """``y_t = sum_j weight_j z_(t-j)`` over j <= position_t, if that is given, so no further than the document.

    ``z`` ends with the ``length`` tokens asked for; what stands before them has been seen before.
    """
    y = z[:, -length:] * weight[0]
    for j in range(1, len(weight)):
        at, back = _j_apart(j, z.shape[1], length)
        old = z[:, back] if position is None else torch.where(position[:, at] >= j, z[:, back], 0.0)
        y[:, at].addcmul_(old, weight[j])
    return y


class _Taps(torch.autograd.Function):
    """``_taps`` and its gradient.

    Autograd would make each tap's a tensor of its own, mostly zeros; of a long row that takes half the time.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, position: Tensor | None, length: int) -> Tensor:
        ctx.save_for_backward(z, weight, position)
        ctx.length = length
        return _taps(z, weight, position, length)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,), (z, weight, position) = grads, ctx.saved_tensors
        of_z, of_weight = torch.zeros_like(z), []
        for j in range(len(weight)):
            at, back = _j_apart(j, z.shape[1], ctx.length)
            heard = grad[:, at]
            if position is not None and j > 0:
                heard = torch.where(position[:, at] >= j, heard, 0.0)
            of_z[:, back].addcmul_(heard, weight[j])
            of_weight.append((heard * z[:, back]).sum((0, 1)))
        return of_z, torch.stack(of_weight), None, None


def _j_apart(j: int, known: int, length: int) -> tuple[slice, slice]:
    """The last ``length`` of ``known`` tokens that have one j before them, and those."""
    first = max(0, j + length - known)
    start = known - length + first - j
    return slice(first, length), slice(start, max(start, known - j))


def aligned(x: Tensor, layout: Layout) -> tuple[Tensor, Layout, Tensor | None]:
    """The tokens with all padding behind them, where they sit, and their order (B, T) for ``restored``.

    Padding may stand inside a document, but a convolution must not count it as neighbours.
    """
    if layout.dense or x.shape[1] == 1:
        return x, layout, None
    order = layout.once("linear/order", lambda: layout.real.logical_not().int().argsort(dim=1, stable=True))
    position, document = layout.position.gather(1, order), layout.document.gather(1, order)
    return _rows(x, order), layout._replace(position=position, document=document, heads=None, scratch=None), order


def restored(y: Tensor, order: Tensor | None) -> Tensor:
    """The tokens back where they stood before ``aligned``."""
    return y if order is None else _rows(y, order.argsort(1))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
