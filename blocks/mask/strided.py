"""A token sees its near past, and every so often one token of the far past.

Two such layers bring any token to any other. Child et al. 2019, https://arxiv.org/abs/1904.10509
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Layout, Mask
from registry import register


@register("mask/strided")
class Strided(Mask):
    """A token sees tokens less than ``stride`` away, and every token a multiple of ``stride`` away.

    Args:
        stride: How far the near tokens reach, and how far apart the others are.

    Raises:
        ValueError: ``stride`` is less than 1.
    """

    def __init__(self, causal: bool, /, *, stride: int = 16) -> None:
        if stride < 1:
            raise ValueError(f"stride must be at least 1, but got {stride}.")
        super().__init__(causal)
        self.stride = stride

    def sees(self, q: Layout, k: Layout) -> Tensor:
        back = q.position - k.position
        return (back.abs() < self.stride) | (back % self.stride == 0)
