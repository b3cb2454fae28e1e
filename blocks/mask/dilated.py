"""A token sees every second, third, ... neighbour: a window with gaps, wide for its price.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Layout, Mask
from registry import register


@register("mask/dilated")
class Dilated(Mask):
    """A token sees ``size`` tokens that stand ``dilation`` apart, itself the first; behind it, or both ways.

    Args:
        size: Tokens seen back, the token's own included; both ways, as many ahead.
        dilation: Steps from one seen token to the next.

    Raises:
        ValueError: ``size`` or ``dilation`` is less than 1.
    """

    window: int

    def __init__(self, causal: bool, /, *, size: int = 32, dilation: int = 2) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        if dilation < 1:
            raise ValueError(f"dilation must be at least 1, but got {dilation}.")
        super().__init__(causal)
        self.dilation = dilation
        self.window = (size - 1) * dilation + 1

    def sees(self, q: Layout, k: Layout) -> Tensor:
        back = q.position - k.position
        return (back.abs() < self.window) & (back % self.dilation == 0)
