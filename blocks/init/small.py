"""Weights as small as a fifth of their width allows, so that norms and warm-up have less to mend.

Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895
Black et al. 2022, https://arxiv.org/abs/2204.06745 (with a narrower start, by depth, of what writes into the stream)
"""

from __future__ import annotations

from torch import nn

from blocks.contracts import Init
from blocks.init._scheme import body, guess_evenly, normal, writers
from registry import register


@register("init/small")
class Small(Init):
    """Normal weights of deviation sqrt(2 / 5 inputs); 2 / (layers sqrt(width)) for stream-writing ones if smaller."""

    def __call__(self, model: nn.Module) -> None:
        for part in body(model):
            normal(part, (2 / (5 * part.weight.shape[1])) ** 0.5)
        guess_evenly(model)
        for part, count in writers(model):
            width, layers = part.weight.shape[0], count / 2  # a layer of the paper writes twice
            normal(part, min((2 / (5 * part.weight.shape[1])) ** 0.5, 2 / (layers * width**0.5)))
