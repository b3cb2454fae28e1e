"""Small weights whose size follows the width of the stream, so that norms and warm-up have less to mend.

Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895
Black et al. 2022, https://arxiv.org/abs/2204.06745 (with a narrower start, by depth, of what writes into the stream)
"""

from __future__ import annotations

import torch
from torch import nn

from blocks.contracts import Init
from blocks.init._scheme import body, guess_evenly, normal, stream_width, writers
from registry import register


@register("init/small")
class Small(Init):
    """Normal weights of deviation sqrt(2 / (5 d_model)); 2 / (layers sqrt(d_model)) for writers if that is smaller.

    Both follow the width of the stream, whatever a matrix has for inputs: Nguyen & Salazar take Xavier's deviation
    sqrt(2 / (d + 4 d)) of a feed-forward for every matrix. Where a model has no stack, inputs stand for the width.
    """

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        width = stream_width(model)
        for part in body(model):
            normal(part, (2 / (5 * (width or part.weight.shape[1]))) ** 0.5)
        guess_evenly(model)
        for weight, count in writers(model):
            layers = count / 2  # a layer of the paper writes twice
            weight.mul_(min(1.0, 10**0.5 / layers))  # 2 / (layers sqrt(d_model)) over the deviation above
