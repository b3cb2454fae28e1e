"""What torch gives each module when it is made; only what makes the logits starts smaller.

He et al. 2015, https://arxiv.org/abs/1502.01852 (torch's linear layers, with a slope of sqrt 5)
"""

from __future__ import annotations

from torch import nn

from blocks.contracts import Init
from blocks.init._scheme import body, guess_evenly
from registry import register


@register("init/torch")
class Torch(Init):
    """Torch's own defaults: uniform within 1 / sqrt(inputs), embeddings normal, logits near a uniform guess."""

    def __call__(self, model: nn.Module) -> None:
        for part in body(model):
            part.reset_parameters()
        guess_evenly(model)
