"""A softmax with one place more, where weight can go that is to read nothing.

Miller 2023 (attention is off by one), https://www.evanmiller.org/attention-is-off-by-one.html
Xiao et al. 2023, https://arxiv.org/abs/2309.17453
Agarwal et al. 2025 (learned, gpt-oss), https://arxiv.org/abs/2508.10925
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from blocks.contracts import Normaliser, declare
from registry import register


@register("normaliser/sink")
class Sink(Normaliser):
    """A softmax over the keys and a sink: weights add up to less than one when nothing fits.

    Args:
        learned: Whether each head learns the sink's score; else it is 0.
    """

    total: ClassVar[Literal["at most one"]] = "at most one"

    def __init__(self, n_heads: int, /, *, learned: bool = True) -> None:
        super().__init__(n_heads)
        self.sink = nn.Parameter(torch.zeros(n_heads)) if learned else None
        declare(self, sink="bias")

    def forward(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        B, _, T, _ = scores.shape
        if self.sink is None:
            sink = scores.new_zeros(1, 1, 1, 1).expand(B, scores.shape[1], T, 1)
        else:
            sink = self.sink.to(scores.dtype)[None, :, None, None].expand(B, -1, T, 1)
        hidden = scores if allowed is None else scores.masked_fill(~allowed, float("-inf"))
        every = torch.cat([hidden, sink], dim=-1)  # (B, H, T, S + 1)
        weights = every.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        return weights[..., :-1].to(scores.dtype)
