"""Dynamic tanh: squash each feature by itself; no statistic of the token is taken.

Zhu et al. 2025, https://arxiv.org/abs/2503.10622
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import Norm, declare
from registry import register


@register("norm/dynamic_tanh")
class DynamicTanh(Norm):
    """The hyperbolic tangent of the scaled features, then a learned scale and shift.

    Args:
        slope: What features are multiplied by before the tangent, at the start.

    Raises:
        ValueError: ``slope`` is zero, which would hide the features.
    """

    def __init__(self, d_model: int, /, *, slope: float = 0.5) -> None:
        super().__init__(d_model)
        if slope == 0:
            raise ValueError(f"slope must not be zero, but got {slope}.")
        self.slope = nn.Parameter(torch.tensor(slope))
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        declare(self, slope="gain", weight="gain", bias="bias")

    def forward(self, x: Tensor) -> Tensor:
        return (torch.tanh(x * self.slope) * self.weight + self.bias).to(x.dtype)
