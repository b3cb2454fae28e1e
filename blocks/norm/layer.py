"""Layer norm: centre the features of a token, bring them to unit variance, scale and shift them.

Ba et al. 2016, https://arxiv.org/abs/1607.06450
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.contracts import Norm, declare
from registry import register


@register("norm/layer")
class LayerNorm(Norm):
    """Zero mean and unit variance over the features, then a learned scale and shift.

    Args:
        eps: Added to the variance, so that equal features do not divide by zero.
        bias: Whether features are shifted after the scale.

    Raises:
        ValueError: ``eps`` is not positive.
    """

    def __init__(self, d_model: int, /, *, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(d_model)
        if eps <= 0:
            raise ValueError(f"eps must be positive, but got {eps}.")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        declare(self, weight="gain", bias="bias")

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).type_as(x)
