"""Weights are positive and add up to one, and one more in the score is e times the weight.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from blocks.contracts import Normaliser
from registry import register


@register("normaliser/softmax")
class Softmax(Normaliser):
    """Weights that add up to one, exponential in the score."""
