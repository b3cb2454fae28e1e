"""Weights whose size follows the width, so that what works at one width works at another.

Yang et al. 2022, https://arxiv.org/abs/2203.03466
"""

from __future__ import annotations

from torch import nn

from blocks.contracts import Init, Model, roles_of
from blocks.init._scheme import body, normal, scoring, shares_with_embedding, stream_width
from registry import register


@register("init/mup")
class MuP(Init):
    """Embeddings the same at every width, hidden weights as 1 / sqrt(inputs), logits falling as 1 / width.

    A head of its own has weights that fall as 1 / inputs. Where it shares the embedding's table, the table stays that
    of an embedding and the stream is multiplied by ``base_width / d_model`` before it is scored, as the authors do.

    Two more parts of the idea are chosen beside it. Scores must fall as 1 / head_dim where heads widen with the model:
    ``attention.score=scaled_dot attention.score.divisor=width``; heads of one width, whose number grows, need nothing.
    Under Adam the learning rate of every hidden matrix falls as 1 / width.

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
        tables = {id(held.parameter) for held in roles_of(model) if held.role == "table"}
        shared = shares_with_embedding(model)
        for part in [*body(model), *scoring(model)] if shared else body(model):
            wider = 1.0 if id(part.weight) in tables else part.weight.shape[1] / self.base_width
            normal(part, self.std * wider**-0.5)
        if shared and isinstance(model, Model):
            model.head.multiplier = self.base_width / (stream_width(model) or scoring(model)[0].weight.shape[1])
            return
        for part in scoring(model):
            normal(part, self.std * self.base_width / part.weight.shape[1])
