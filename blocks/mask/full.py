"""A token sees its whole document, before and after it.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from blocks.contracts import Mask
from registry import register


@register("mask/full")
class Full(Mask):
    """A token sees its whole document.

    Raises:
        ValueError: The slot is causal.
    """

    def __init__(self, causal: bool, /) -> None:
        if causal:
            raise ValueError(
                f"mask must hide the future here, but got {type(self).__name__}, which shows it. Use causal, or "
                "another mask that can."
            )
        super().__init__(causal)
