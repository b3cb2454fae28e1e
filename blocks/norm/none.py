"""No norm: features pass as they are."""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Norm
from registry import register


@register("norm/none")
class NoNorm(Norm):
    """Leaves the features as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x
