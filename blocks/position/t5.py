"""T5's relative bias: a learned number for each head and each bucket of distances.

Raffel et al. 2019, https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from blocks.contracts import AttentionPosition, Layout, Mask, declare
from blocks.position.distance import by_distance
from registry import register


@register("position/t5")
class T5(AttentionPosition):
    """Adds a learned bias by bucket of distance; near distances have their own, far ones share (Raffel et al., 2.1).

    Half of the buckets hold one distance each, the others grow with the logarithm up to ``max_distance``. Under
    causal masks all buckets lie behind the query; as soon as one mask lets queries look ahead, half of them do.

    Args:
        buckets: Learned numbers for each head.
        max_distance: This distance and all further ones share the last bucket.

    Raises:
        ValueError: ``buckets`` is not a multiple of 4; ``max_distance`` is not above half of them.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(n_heads, head_dim)
        if buckets < 4 or buckets % 4:
            raise ValueError(f"buckets must be a multiple of 4, but got {buckets}.")
        if max_distance <= buckets // 2:
            raise ValueError(f"max_distance must be above half of the {buckets} buckets, but got {max_distance}.")
        self.buckets = buckets
        self.max_distance = max_distance
        self.both_ways = False
        self.table = nn.Parameter(torch.empty(n_heads, buckets))
        declare(self, table="table")
        nn.init.normal_(self.table, std=(n_heads * head_dim) ** -0.5)

    def admit(self, mask: Mask) -> None:
        self.both_ways = self.both_ways or not mask.causal

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        # index_select: its backward is three times as fast as an embedding's.
        return by_distance(lambda n: self.table.index_select(1, self.bucket(n)), q_layout, k_layout)

    def bucket(self, ahead: Tensor) -> Tensor:
        """Of a key ``ahead`` tokens ahead of the query, elementwise. int64 -> int64"""
        n = self.buckets // 2 if self.both_ways else self.buckets
        distance = ahead.abs() if self.both_ways else (-ahead).clamp(min=0)
        exact = n // 2
        # In float32 and in this order, which decides on which side of a boundary published weights expect a distance.
        far = torch.log(distance.clamp(min=exact).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (far * (n - exact)).long()).clamp(max=n - 1)
        bucket = torch.where(distance < exact, distance, far)
        return bucket + n * (ahead > 0) if self.both_ways else bucket
