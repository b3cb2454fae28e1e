"""Pooling: each token becomes the mean of those around it, less itself; nothing is learned.

Yu et al. 2021 (PoolFormer), https://arxiv.org/abs/2111.11418
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State
from blocks.convolution._mask import must_be_plain, must_look_back, near
from blocks.lines import Recent, exact, line_up, neighbours
from registry import register


@dataclass(frozen=True, slots=True)
class Total(State):
    """The sum of a document's tokens so far, with a one beside each token to count them; float32 at least."""

    total: Tensor  # (B, D + 1)


@register("convolution/pooling")
class Pooling(Mixer[Recent | Total]):
    """The mean over a window or a whole document, less the token itself (which a residual adds again).

    Args:
        size: Tokens of the window, its own counted; as many again ahead of it where the mask is full. None: the
            whole document, or all of it so far where the mask is causal.

    Raises:
        ValueError: ``size`` is not positive; the mask is neither plainly causal nor full.
    """

    like: Tensor

    def __init__(self, d_model: int, mask: Mask, /, *, size: int | None = 4) -> None:
        super().__init__(d_model, mask)
        must_be_plain(mask, type(self).__name__)
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, or null for the whole document, but got {size}.")
        self.size = size
        self.register_buffer("like", torch.empty(0), persistent=False)  # where a state starts, and in what dtype

    def forward(
        self, x: Tensor, layout: Layout, state: Recent | Total | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Recent | Total | None]:
        counted = torch.cat([exact(x), exact(torch.ones_like(x[..., :1]))], dim=-1)  # (B, T, D + 1)
        total: Tensor
        if self.size is not None:
            line = line_up(counted, layout, state if isinstance(state, Recent) else None)
            ahead = 0 if self.mask.causal else self.size - 1
            total = line.restore(torch.stack(neighbours(line.x, line.run, self.size - 1, ahead)).sum(0))
            state = line.recent(state) if isinstance(state, Recent) else None
        elif self.mask.causal:
            total = _so_far(counted, layout, state.total if isinstance(state, Total) else None)
            state = Total(total[:, -1].clone()) if state is not None else None
        else:
            total = _whole(counted, layout)
        return (total[..., :-1] / total[..., -1:].clamp_min(1.0)).to(x.dtype) - x, state

    def empty_state(self, rows: int, capacity: int) -> Recent | Total:
        must_look_back(self.mask, type(self).__name__)
        like, width = exact(self.like), self.d_model + 1
        return (
            Total(like.new_zeros(rows, width)) if self.size is None else Recent.empty(like, rows, self.size - 1, width)
        )

    def cost(self, length: int) -> Cost:
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(parameters=0, flops=0, state_bytes=state, steps=self._rounds(length))

    def reads(self, length: int) -> Tensor:
        seen = self.mask.pairs(length)
        return seen if self.size is None else near(seen, self.size - 1)

    def path(self, distance: int, length: int) -> Path:
        return Path(1, self._rounds(distance + 1)) if self.size is None else super().path(distance, length)

    def _rounds(self, length: int) -> int:
        """Of a sum so far: sums of pairs, of pairs of pairs, ..."""
        return max(1, (length - 1).bit_length()) if self.size is None and self.mask.causal else 1


def _so_far(x: Tensor, layout: Layout, past: Tensor | None) -> Tensor:
    """The sum over each document up to each token; at padding, up to the token before. (B, T, F)"""
    x = x.masked_fill(~layout.real[..., None], 0.0)
    starts = layout.position == 0
    if past is not None:
        x = torch.cat([past[:, None], x], dim=1)
        starts = F.pad(starts, (1, 0))
    total = x.cumsum(1)
    index = torch.ones_like(starts, dtype=torch.long).cumsum(1)
    before = torch.where(starts, index - 1, 0).cummax(1).values  # tokens in the row before the document
    none = F.pad(total, (0, 0, 1, 0)).gather(1, before[..., None].expand_as(total))
    return (total - none)[:, total.shape[1] - layout.position.shape[1] :]


def _whole(x: Tensor, layout: Layout) -> Tensor:
    """The sum over each token's whole document. (B, T, F)"""
    if layout.dense:
        return x.sum(1, keepdim=True).expand_as(x)
    number = (layout.position == 0).long().cumsum(1).masked_fill(~layout.real, x.shape[1] + 1)  # padding by itself
    number = number[..., None].expand_as(x)
    return x.new_zeros(len(x), x.shape[1] + 2, x.shape[2]).scatter_add(1, number, x).gather(1, number)
