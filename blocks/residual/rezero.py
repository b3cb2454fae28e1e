"""x + a f(x), where a is one learned number that starts at zero: at the start every layer passes the stream on.

Bachlechner et al. 2020, https://arxiv.org/abs/2003.04887
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import Residual, Site, declare
from registry import register


@register("residual/rezero")
class ReZero(Residual):
    """Adds what the sublayer says times a learned number that starts at zero; nothing is normed.

    Args:
        dropout: Probability of dropping a feature of what the sublayer says while training.
    """

    final_norm = False

    def __init__(self, d_model: int, site: Site, /, *, dropout: float = 0.0) -> None:
        super().__init__(d_model, site)
        self.weight = nn.Parameter(torch.zeros(()))
        declare(self, weight="gain")
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return x

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.weight * self.dropout(y)
