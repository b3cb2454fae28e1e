"""(1 - g) x + g f(norm(x)): a learned gate says, feature by feature, how much of the stream is replaced.

Srivastava et al. 2015, https://arxiv.org/abs/1505.00387
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import Norm, Residual, Site, declare
from registry import Factory, register


@register("residual/gated", norm="norm/rms")
class GatedResidual(Residual):
    """A highway: each feature of the stream is carried on or replaced by what the sublayer says.

    Args:
        norm: The norm before the sublayer.
        start: The gate's logit at the start; negative: most of the stream is carried on.
        dropout: Probability of dropping a feature of what the sublayer says while training.
    """

    final_norm = True

    def __init__(
        self, d_model: int, site: Site, /, *, norm: Factory[Norm], start: float = -2.0, dropout: float = 0.0
    ) -> None:
        super().__init__(d_model, site)
        self.norm = norm(d_model)
        self.to_gate = nn.Linear(d_model, d_model, bias=False)
        self.threshold = nn.Parameter(torch.full((d_model,), start))
        declare(self, threshold="bias")  # not that of ``to_gate``, which an init scheme sets to zero
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        gate = torch.sigmoid(self.to_gate(x) + self.threshold)
        return x + gate * (self.dropout(y) - x)
