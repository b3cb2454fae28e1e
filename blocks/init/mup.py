"""Weights whose size follows the width, so that what works at one width works at another.

The other half of the idea is the optimizer's: under Adam the learning rate of every hidden matrix falls as 1 / width.

Yang et al. 2022, https://arxiv.org/abs/2203.03466
"""

from __future__ import annotations

from torch import nn

from blocks.contracts import Init
from blocks.init._scheme import body, normal, scoring
from registry import register


@register("init/mup")
class MuP(Init):
    """Embeddings the same at every width, hidden weights as 1 / sqrt(inputs), scoring weights as 1 / inputs.

    Args:
        std: Standard deviation of every weight at the base width.
        base_width: The width at which this is an ordinary start.

    Raises:
        ValueError: ``std`` or ``base_width`` is not positive.
    """

    def __init__(self, /, *, std: float = 0.02, base_width: int = 64) -> None:
        if std <= 0:
            raise ValueError(f"std must be positive, but got {std}.")
        if base_width <= 0:
            raise ValueError(f"base_width must be positive, but got {base_width}.")
        self.std = std
        self.base_width = base_width

    def __call__(self, model: nn.Module) -> None:
        for part in body(model):
            wider = part.weight.shape[1] / self.base_width if isinstance(part, nn.Linear) else 1.0
            normal(part, self.std * wider**-0.5)
        for part in scoring(model):
            normal(part, self.std * self.base_width / part.weight.shape[1])
