"""Every weight from one narrow normal distribution; what writes into the stream narrower, the more there are to add up.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from __future__ import annotations

import torch
from torch import nn

from blocks.contracts import Init
from blocks.init._scheme import body, normal, scoring, writers
from registry import register


@register("init/gpt2")
class Gpt2(Init):
    """Normal weights of one width, biases at zero, stream-writing weights divided by the root of their number.

    Args:
        std: Standard deviation of the weights.

    Raises:
        ValueError: ``std`` is not positive.
    """

    def __init__(self, /, *, std: float = 0.02) -> None:
        if std <= 0:
            raise ValueError(f"std must be positive, but got {std}.")
        self.std = std

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        for part in [*body(model), *scoring(model)]:
            normal(part, self.std)
        for weight, count in writers(model):
            weight.mul_(count**-0.5)
