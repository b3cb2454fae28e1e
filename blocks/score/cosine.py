"""A query and a key are alike by the angle between them alone, made sharper by a learned factor.

Henry et al. 2020, https://arxiv.org/abs/2010.04245
Liu et al. 2022 (a factor for each head), https://arxiv.org/abs/2111.09883
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Score, declare
from registry import register


@register("score/cosine")
class CosineScore(Score):
    """The cosine between query and key, times a factor that each head learns.

    Args:
        start: The factor at the start.

    Raises:
        ValueError: ``start`` is not positive.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, start: float = 10.0) -> None:
        super().__init__(n_heads, head_dim)
        if start <= 0:
            raise ValueError(f"start must be positive, but got {start}.")
        self.scale = 1.0
        self.log_factor = nn.Parameter(torch.full((n_heads, 1), math.log(start)))
        declare(self, log_factor="gain")

    def prepare(self, x: Tensor, role: Literal["query", "key"], rotate: Callable[[Tensor], Tensor]) -> Tensor:
        x = rotate(F.normalize(x, dim=-1))  # in this order, a position that stretches has its say
        return x * self.log_factor.exp() if role == "query" else x
