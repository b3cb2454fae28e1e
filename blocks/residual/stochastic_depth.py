"""x + f(norm(x)) for some rows, x for the others: while training, deep sublayers are left out more often.

Huang et al. 2016, https://arxiv.org/abs/1603.09382
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Norm, Residual, Site
from registry import Factory, register


@register("residual/stochastic_depth", norm="norm/rms")
class StochasticDepth(Residual):
    """Pre-norm that drops what a sublayer says for whole rows, more often the deeper it stands.

    Args:
        norm: The norm before the sublayer.
        rate: Probability of dropping the last layer's; it grows in a line from the first layer's.

    Raises:
        ValueError: ``rate`` is not a probability below one.
    """

    final_norm = True

    def __init__(self, d_model: int, site: Site, /, *, norm: Factory[Norm], rate: float = 0.1) -> None:
        super().__init__(d_model, site)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1, but got {rate}.")
        self.keep = 1.0 - rate * (site.depth + 1) / site.n_layers
        self.norm = norm(d_model)

    def read(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.training or self.keep == 1.0:
            return x + y
        kept = y.new_empty(len(y), 1, 1).bernoulli_(self.keep).div_(self.keep)  # (B, 1, 1): what is expected stays
        return x + kept * y
