"""No residual: what the sublayer says replaces the stream."""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Residual, Site
from registry import register


@register("residual/none")
class NoResidual(Residual):
    """The next sublayer sees only what this one said; nothing is added, nothing is normed."""

    final_norm = False

    def __init__(self, d_model: int, site: Site, /) -> None:
        super().__init__(d_model, site)

    def read(self, x: Tensor) -> Tensor:
        return x

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return y
