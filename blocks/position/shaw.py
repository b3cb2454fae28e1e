"""Relative linear position attention: a learned vector for each distance, added to the key and to the value.

Shaw et al. 2018, https://arxiv.org/abs/1803.02155
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import AttentionPosition, Layout, declare
from blocks.position.distance import ahead
from registry import register


@register("position/shaw")
class Shaw(AttentionPosition):
    """Adds to each key and each value a learned vector for its distance from the query, clipped (equations 3 to 5).

    The vectors are shared by the heads. Scores gain ``q . a / sqrt(K)``.

    Args:
        clip: Distances at or above this count as this, ahead and behind.

    Raises:
        ValueError: ``clip`` is not positive.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, clip: int = 16) -> None:
        super().__init__(n_heads, head_dim)
        if clip < 1:
            raise ValueError(f"clip must be positive, but got {clip}.")
        self.n_heads = n_heads
        self.clip = clip
        self.keys = nn.Parameter(torch.randn(2 * clip + 1, head_dim) * head_dim**-0.5)
        self.values = nn.Parameter(torch.randn(2 * clip + 1, head_dim) * head_dim**-0.5)
        declare(self, keys="table", values="table")

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        # Each query meets each distance once; then every pair looks its distance up.
        by_row = (q * q.shape[-1] ** -0.5) @ self.keys.t()  # (B, T, H, R)
        return by_row.transpose(1, 2).gather(-1, self._row(by_row, q_layout, k_layout))

    def value_bias(self, p: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        by_row = p.new_zeros(*p.shape[:3], len(self.values))
        by_row = by_row.scatter_add(-1, self._row(p.transpose(1, 2), q_layout, k_layout), p)  # (B, H, T, R)
        return (by_row @ self.values.to(p.dtype)).transpose(1, 2)

    def _row(self, x: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        """Of the table, for each pair. (B, T, H, ...) -> (B, H, T, S)"""

        def make() -> Tensor:
            return ahead(q_layout, k_layout).clamp(-self.clip, self.clip) + self.clip

        row = q_layout.once((self, "row"), make) if k_layout is q_layout else make()
        return row[:, None].expand(x.shape[0], x.shape[2], -1, -1)

    def flops(self, queries: int, keys: int) -> int:
        return 2 * 2 * queries * self.n_heads * self.keys.numel()
