"""Each key is weighed by itself: no key takes weight from another.

Ramapuram et al. 2024, https://arxiv.org/abs/2409.04431
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from blocks.contracts import Normaliser
from blocks.functional import seen_keys
from registry import register


@register("normaliser/sigmoid")
class Sigmoid(Normaliser):
    """The sigmoid of the score less the logarithm of the number of keys in sight."""

    total: ClassVar[Literal["any"]] = "any"

    def forward(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        weights = (scores - seen_keys(scores, allowed).log()).sigmoid()
        return weights if allowed is None else weights.masked_fill(~allowed, 0.0)
