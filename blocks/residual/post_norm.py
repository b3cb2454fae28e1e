"""norm(x + f(x)): the stream is normed after every sublayer.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Norm, Residual, Site
from registry import Factory, register


@register("residual/post_norm", norm="norm/rms")
class PostNorm(Residual):
    """Adds what the sublayer says, and norms the sum.

    Args:
        norm: The norm after the sum.
        dropout: Probability of dropping a feature of what the sublayer says while training.
    """

    final_norm = False

    def __init__(self, d_model: int, site: Site, /, *, norm: Factory[Norm], dropout: float = 0.0) -> None:
        super().__init__(d_model, site)
        self.norm = norm(d_model)
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return x

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return self.norm(x + self.dropout(y))
