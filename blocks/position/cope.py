"""Contextual position: how far back a key lies is counted in tokens that the query cares about.

Golovneva et al. 2024, https://arxiv.org/abs/2405.18719
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import PAD, AttentionPosition, Layout, Mask, declare
from registry import register


@register("position/cope")
class Cope(AttentionPosition):
    """Counts a gate ``sigmoid(q . k / sqrt(K))`` for each token from the key on, and adds ``q . e[count]``.

    Golovneva et al., equations 4 to 7: the vector e of a count between two whole numbers is interpolated. The count
    of one key needs the others: ``bias`` must be given all keys of its queries' documents up to the queries.

    Args:
        positions: Vectors that are learned; larger counts share the last.

    Raises:
        ValueError: ``positions`` is below 2; a mask hides earlier tokens or lets queries see later ones.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, positions: int = 64) -> None:
        super().__init__(n_heads, head_dim)
        if positions < 2:
            raise ValueError(f"positions must be at least 2, but got {positions}.")
        self.n_heads = n_heads
        self.table = nn.Parameter(torch.randn(head_dim, positions) * 0.02)
        declare(self, table="table")

    def admit(self, mask: Mask) -> None:
        if not (mask.plain and mask.causal):
            raise ValueError(
                f"mask must be causal, and hide nothing else, for {type(self).__name__}, which counts all tokens from "
                f"a key to its query, but got {type(mask).__name__}."
            )

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        count = self.count(q, k, q_layout, k_layout).clamp(max=self.table.shape[1] - 1)  # (B, H, T, S)
        heard = (q @ self.table.to(q.dtype)).transpose(1, 2)  # (B, H, T, positions)
        below = count.detach().floor().long()
        low, high = heard.gather(-1, below), heard.gather(-1, (below + 1).clamp(max=self.table.shape[1] - 1))
        return low + (high - low) * (count - below)

    def count(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        """Gates of the query's document from each key up to the query, summed. (B, H, T, S)"""
        G = k.shape[2]
        scores = torch.einsum("btgrk,bsgk->bgrts", q.unflatten(2, (G, -1)), k).flatten(1, 2) * q.shape[-1] ** -0.5
        same = (q_layout.document[:, :, None] == k_layout.document[:, None, :]) & (k_layout.document != PAD)[:, None]
        counted = same & (k_layout.position[:, None, :] <= q_layout.position[:, :, None])
        gates = scores.to(torch.promote_types(q.dtype, torch.float32)).sigmoid() * counted[:, None]
        if k_layout is q_layout:  # a call's own tokens stand in order; cached ones may not
            return _sum_from(gates)
        order = k_layout.position.argsort(dim=1)  # documents mix here, but gates of other documents are zero
        back = order.argsort(dim=1)
        order, back = (t[:, None, None].expand_as(gates) for t in (order, back))
        return _sum_from(gates.gather(-1, order)).gather(-1, back)

    def flops(self, queries: int, keys: int) -> int:
        K, positions = self.table.shape
        return 2 * queries * self.n_heads * K * (keys + positions)

    def steps(self, keys: int) -> int:
        return max(1, (keys - 1).bit_length())  # sums of gates, of pairs of them, ...


def _sum_from(x: Tensor) -> Tensor:
    """Of each entry and all behind it on the last axis."""
    return x.flip(-1).cumsum(-1).flip(-1)
