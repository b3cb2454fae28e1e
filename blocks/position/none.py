"""No position: attention sees a set of tokens, not a sequence.

Haviv et al. 2022 (a causal decoder learns order without one), https://arxiv.org/abs/2203.16634
"""

from __future__ import annotations

from blocks.contracts import AttentionPosition
from registry import register


@register("position/none")
class NoPosition(AttentionPosition):
    """Leaves attention without any notion of order but what its mask tells."""
