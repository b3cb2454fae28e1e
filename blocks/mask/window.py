"""A token sees its neighbours: the last few tokens, or as many on either side.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Layout, Mask
from registry import register


@register("mask/window")
class Window(Mask):
    """A token sees tokens less than ``size`` away, itself among them; behind it, or both ways.

    Args:
        size: Tokens seen back, the token's own included; both ways, as many ahead.

    Raises:
        ValueError: ``size`` is less than 1.
    """

    window: int

    def __init__(self, causal: bool, /, *, size: int = 64) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        super().__init__(causal)
        self.window = size

    def sees(self, q: Layout, k: Layout) -> Tensor:
        return (q.position - k.position).abs() < self.window
