"""A token sees its neighbours and the first tokens of its document, which see everything.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Layout, Mask
from blocks.functional import Pattern, band
from registry import register


@register("mask/longformer")
class Longformer(Mask):
    """A window of ``size`` tokens, and ``n_global`` first tokens that all see and (both ways) that see all.

    Args:
        size: Tokens seen back, the token's own included; both ways, as many ahead.
        n_global: Tokens at the start of a document that everybody sees.

    Raises:
        ValueError: ``size`` is less than 1, or ``n_global`` less than 0.
    """

    blocks: Pattern

    def __init__(self, causal: bool, /, *, size: int = 64, n_global: int = 4) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        if n_global < 0:
            raise ValueError(f"n_global must be at least 0, but got {n_global}.")
        super().__init__(causal)
        self.size = size
        self.n_global = n_global
        self.blocks = band(size, causal).also_first(n_global, both_ways=not causal)

    def sees(self, q: Layout, k: Layout) -> Tensor:
        near = (q.position - k.position).abs() < self.size
        return near | (k.position < self.n_global) | (q.position < self.n_global)
