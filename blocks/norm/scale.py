"""Scale norm: bring the features of a token to one learned length.

Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import Norm, declare
from registry import register


@register("norm/scale")
class ScaleNorm(Norm):
    """Every token gets the same length, the root of d_model at the start: one number is learned.

    Args:
        eps: The least length that a token is divided by.

    Raises:
        ValueError: ``eps`` is not positive.
    """

    def __init__(self, d_model: int, /, *, eps: float = 1e-5) -> None:
        super().__init__(d_model)
        if eps <= 0:
            raise ValueError(f"eps must be positive, but got {eps}.")
        self.eps = eps
        self.length = nn.Parameter(torch.tensor(d_model**0.5))
        declare(self, length="gain")

    def forward(self, x: Tensor) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise).clamp_min(self.eps)
        return (x * (self.length / length)).to(x.dtype)
