"""x + norm(f(norm(x))): what goes into the sublayer is normed, and what comes out.

Ding et al. 2021, https://arxiv.org/abs/2105.13290
Gemma Team 2024, https://arxiv.org/abs/2408.00118
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Norm, Residual, Site
from registry import Factory, register


@register("residual/sandwich", norm="norm/rms")
class Sandwich(Residual):
    """Norms what the sublayer sees and what it says, and adds that.

    Args:
        norm: The norm before the sublayer, and (with weights of its own) the one after it.
        dropout: Probability of dropping a feature of what is added while training.
    """

    final_norm = True

    def __init__(self, d_model: int, site: Site, /, *, norm: Factory[Norm], dropout: float = 0.0) -> None:
        super().__init__(d_model, site)
        self.norm = norm(d_model)
        self.norm_after = norm(d_model)
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.dropout(self.norm_after(y))
