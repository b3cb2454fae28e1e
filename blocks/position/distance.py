"""Biases that depend on nothing but how far a key lies from its query."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from blocks.contracts import Layout


def ahead(q: Layout, k: Layout) -> Tensor:
    """How many tokens each key lies ahead of its query; negative: behind. (B or 1, T, S) int64

    One row stands for all where all are alike.
    """
    q_position, k_position = (t[:1] if alike(q, k) else t for t in (q.position, k.position))
    return k_position[:, None, :] - q_position[:, :, None]


def alike(q: Layout, k: Layout) -> bool:
    """Whether queries and keys are the same whole documents, so that all rows have the same distances."""
    return k is q and q.dense


def by_distance(score: Callable[[Tensor], Tensor], q: Layout, k: Layout) -> Tensor:
    """The bias whose entry for a key ``n`` tokens ahead is ``score(n)``. (B or 1, H, T, S)

    ``score`` takes distances (N,) and gives (H, N). Whole documents have only 2T - 1 distances: they are scored
    once and laid out along the diagonals, which is several times faster than scoring pairs, forward and backward.
    """
    if alike(q, k):
        T = q.position.shape[1]
        diagonals = score(torch.arange(1 - T, T, device=q.position.device))  # (H, 2T - 1)
        return diagonals.unfold(1, T, 1).flip(1)[None]
    n = ahead(q, k)
    return score(n.flatten()).unflatten(1, n.shape).transpose(0, 1)
