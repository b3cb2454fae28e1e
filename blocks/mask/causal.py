"""A token sees itself and the past of its document.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from blocks.contracts import Mask
from registry import register


@register("mask/causal")
class Causal(Mask):
    """A token sees itself and what came before it, whatever the direction of the stack."""

    def __init__(self, causal: bool, /) -> None:
        super().__init__(True)
