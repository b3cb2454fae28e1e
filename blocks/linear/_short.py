"""Each channel mixed with its last few tokens: the short convolution in front of a fast memory.

Gu and Dao 2023, https://arxiv.org/abs/2312.00752
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.contracts import Layout, State


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

    def forward(self, x: Tensor, layout: Layout, tail: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) -> (B, T, C), and the new tail if there was one."""
        length, before = x.shape[1], len(self.weight) - 1
        past = x.new_zeros(len(x), before, x.shape[2]) if tail is None or layout.dense else tail
        z = torch.cat([past, x], 1)

        y = x * self.weight[0]
        for j in range(1, before + 1):
            back = z[:, before - j : before - j + length]
            if not layout.dense:
                back = torch.where((layout.position >= j)[..., None], back, 0.0)  # no further than its document
            y.addcmul_(back, self.weight[j])
        y = nn.functional.silu(y if self.bias is None else y + self.bias)

        if tail is not None:
            last = layout.real.sum(1)[:, None] + torch.arange(before, device=x.device)
            tail = z.gather(1, last[..., None].expand(-1, -1, x.shape[2]))
        return y, tail

    def empty_tail(self, rows: int) -> Tensor:
        return self.weight.new_zeros(rows, *self.weight[1:].shape)


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
