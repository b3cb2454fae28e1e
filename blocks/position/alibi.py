"""ALiBi: each head loses interest in a key linearly with its distance.

Press et al. 2021, https://arxiv.org/abs/2108.12409
"""

from __future__ import annotations

import torch
from torch import Tensor

from blocks.contracts import AttentionPosition, Layout
from blocks.position.distance import by_distance
from registry import register


@register("position/alibi")
class Alibi(AttentionPosition):
    """Subtracts ``slope * |distance|`` from the scores; slopes halve from head to head (Press et al., section 3).

    For n heads, a power of two, head h (from 1) has the slope ``2^(-8h / n)``. For other n, heads past the power
    of two below take every other slope of the power above, as in the authors' code. Where a query also sees keys
    ahead, they count as far as those behind.
    """

    def __init__(self, n_heads: int, head_dim: int, /) -> None:
        super().__init__(n_heads, head_dim)
        self.n_heads = n_heads

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        dtype = torch.promote_types(q.dtype, torch.float32)

        def make() -> Tensor:
            slopes = self.slopes(q.device, dtype)
            return by_distance(lambda n: -slopes[:, None] * n.abs(), q_layout, k_layout)

        return q_layout.once((self, "bias", dtype), make) if k_layout is q_layout else make()

    def slopes(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """(H,)"""
        n = 2 ** (self.n_heads.bit_length() - 1)  # the power of two at or below
        first = torch.arange(1, n + 1, device=device, dtype=dtype) * (8 / n)
        between = (2 * torch.arange(self.n_heads - n, device=device, dtype=dtype) + 1) * (4 / n)
        return torch.exp2(-torch.cat([first, between]))
