"""How much each head forgets at a token, told by the token: a step of continuous time and a rate a head.

Gu and Dao 2023, https://arxiv.org/abs/2312.00752
Dao and Gu 2024, https://arxiv.org/abs/2405.21060
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import declare

SHORTEST, LONGEST = 0.001, 0.1
"""Between these the steps start, even in their logarithm."""


class TimeStep(nn.Module):
    """``dt = softplus(to_dt(x) + dt_bias)``, and the logarithm of what is left after it, ``-exp(A_log) dt``."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.to_dt = nn.Linear(d_model, n_heads, bias=False)
        start = torch.empty(n_heads).uniform_(math.log(SHORTEST), math.log(LONGEST)).exp()
        self.dt_bias = nn.Parameter(start + torch.log(-torch.expm1(-start)))  # softplus gives the start back
        self.A_log = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        declare(self, dt_bias="dynamics", A_log="dynamics")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> steps and logarithms of decays, (B, T, H) each, float32 at least."""
        step = self.to_dt(x)
        wide = torch.promote_types(step.dtype, torch.float32)
        step = F.softplus(step.to(wide) + self.dt_bias.to(wide))
        return step, -self.A_log.to(wide).exp() * step
