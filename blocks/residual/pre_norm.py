"""x + f(norm(x)): the sublayer sees a normed stream, the stream itself is never normed.

Xiong et al. 2020, https://arxiv.org/abs/2002.04745
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Norm, Residual, Site
from registry import Factory, register


@register("residual/pre_norm", norm="norm/rms")
class PreNorm(Residual):
    """Norms what the sublayer sees, and adds what it says.

    Args:
        norm: The norm before the sublayer.
        dropout: Probability of dropping a feature of what the sublayer says while training.
    """

    final_norm = True

    def __init__(self, d_model: int, site: Site, /, *, norm: Factory[Norm], dropout: float = 0.0) -> None:
        super().__init__(d_model, site)
        self.norm = norm(d_model)
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.dropout(y)
