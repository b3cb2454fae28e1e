"""Keys with a negative score get exactly nothing; the others by the square of theirs.

Wortsman et al. 2023, https://arxiv.org/abs/2309.08586
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from blocks.contracts import Normaliser
from blocks.functional import seen_keys
from registry import register


@register("normaliser/relu2")
class SquaredRelu(Normaliser):
    """The square of the positive part of the score, divided by the number of keys in sight."""

    total: ClassVar[Literal["any"]] = "any"

    def forward(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        weights = scores.relu().square() / seen_keys(scores, allowed)
        return weights if allowed is None else weights.masked_fill(~allowed, 0.0)
