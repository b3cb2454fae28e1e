"""The first tokens see each other both ways; the rest see them and their own past.

Raffel et al. 2020 (prefix language model), https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Layout, Mask
from registry import register


@register("mask/prefix")
class Prefix(Mask):
    """A token sees the first ``size`` tokens of its document, and those before it.

    Args:
        size: Tokens of the prefix, which see each other both ways.

    Raises:
        ValueError: ``size`` is less than 1, or the slot is causal.
    """

    def __init__(self, causal: bool, /, *, size: int = 16) -> None:
        if causal:
            raise ValueError(
                f"mask must hide the future here, but got {type(self).__name__}, whose first tokens see each other "
                "both ways. Use it in an encoder, or causal here."
            )
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        super().__init__(causal)
        self.size = size

    def sees(self, q: Layout, k: Layout) -> Tensor:
        return (k.position <= q.position) | (k.position < self.size)
