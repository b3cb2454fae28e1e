"""x + w f(norm(x)), where w is a learned number for each feature that starts small.

Touvron et al. 2021, https://arxiv.org/abs/2103.17239
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import Norm, Residual, Site, declare
from registry import Factory, register


@register("residual/layer_scale", norm="norm/rms")
class LayerScale(Residual):
    """Norms what the sublayer sees, and adds what it says times a small learned weight for each feature.

    Args:
        norm: The norm before the sublayer.
        start: Where the weights start. The paper: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond.
        dropout: Probability of dropping a feature of what the sublayer says while training.
    """

    final_norm = True

    def __init__(
        self, d_model: int, site: Site, /, *, norm: Factory[Norm], start: float = 0.1, dropout: float = 0.0
    ) -> None:
        super().__init__(d_model, site)
        self.norm = norm(d_model)
        self.weight = nn.Parameter(torch.full((d_model,), start))
        declare(self, weight="gain")
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.weight * self.dropout(y)
