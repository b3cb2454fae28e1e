"""norm(a x + f(x)): post-norm with a stream so strong, and sublayers that start so small, that depth is no danger.

Both constants follow from the depth of the whole model.

Wang et al. 2022, https://arxiv.org/abs/2203.00555
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Norm, Residual, Site
from registry import Factory, register


@register("residual/deep_norm", norm="norm/rms")
class DeepNorm(Residual):
    """Strengthens the stream, adds what the sublayer says, and norms the sum.

    Args:
        norm: The norm after the sum.
        dropout: Probability of dropping a feature of what the sublayer says while training.
    """

    final_norm = False

    def __init__(self, d_model: int, site: Site, /, *, norm: Factory[Norm], dropout: float = 0.0) -> None:
        super().__init__(d_model, site)
        self.strength, self.gain = constants(site)
        self.norm = norm(d_model)
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        return x

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        return self.norm(self.strength * x + self.dropout(y))


def constants(site: Site) -> tuple[float, float]:
    """The stream's strength (alpha) and the sublayers' gain (beta): table 1 of the paper."""
    n, m = site.encoder_layers, site.decoder_layers
    if not (n and m):
        depth = n or m or site.n_layers
        return (2 * depth) ** 0.25, (8 * depth) ** -0.25
    if site.reads_memory:
        return (3 * m) ** 0.25, (12 * m) ** -0.25
    return 0.81 * (n**4 * m) ** 0.0625, 0.87 * (n**4 * m) ** -0.0625
