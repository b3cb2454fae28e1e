"""KERPLE: each head loses interest with distance along a curve that it learns.

Chi et al. 2022, https://arxiv.org/abs/2205.09921
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import AttentionPosition, Layout, declare
from blocks.position.distance import by_distance
from registry import register


@register("position/kerple")
class Kerple(AttentionPosition):
    """Subtracts ``r1 log(1 + r2 d)`` or ``r1 d^r2`` at distance d, with r1 and r2 learned by each head.

    Chi et al., section 4: r1 and r2 are positive, r2 at most 2 in the power kernel. They are kept so by a softplus
    (a sigmoid for the bounded one) where the authors clamp.

    Args:
        kernel: log is slow to forget far keys; power includes ALiBi (r2 = 1) and a Gaussian (r2 = 2).
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, kernel: Literal["log", "power"] = "log") -> None:
        super().__init__(n_heads, head_dim)
        self.kernel = kernel
        wide, narrow = (torch.rand(n_heads).mul(width).clamp(min=0.01, max=0.99 * width) for width in (2.0, 1.0))
        r1, r2 = (wide, narrow) if kernel == "log" else (narrow, wide)  # starts as the authors' do
        self.raw_r1 = nn.Parameter(_before_softplus(r1))
        self.raw_r2 = nn.Parameter(_before_softplus(r2) if kernel == "log" else torch.logit(r2 / 2))
        declare(self, raw_r1="dynamics", raw_r2="dynamics")

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        r1, r2 = (r[:, None] for r in self.curve(torch.promote_types(q.dtype, torch.float32)))

        def score(ahead: Tensor) -> Tensor:
            distance = ahead.abs().to(r1.dtype)
            return -r1 * (torch.log1p(r2 * distance) if self.kernel == "log" else distance**r2)

        return by_distance(score, q_layout, k_layout)

    def curve(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """r1 and r2 of each head. (H,), (H,)"""
        raw_r2 = self.raw_r2.to(dtype)
        r2 = F.softplus(raw_r2) if self.kernel == "log" else 2 * raw_r2.sigmoid()
        return F.softplus(self.raw_r1.to(dtype)), r2


def _before_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))
