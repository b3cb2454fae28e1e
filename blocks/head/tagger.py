"""A tag for each token of the row.

Collobert et al. 2011, https://arxiv.org/abs/1103.0398
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from blocks.contracts import Answer, Head, Layout
from blocks.head._cross_entropy import linear_cross_entropy
from registry import register


@register("head/tagger")
class Tagger(Head):
    """Scores every tag for each token of the stream.

    Args:
        n_tags: How many tags there are; universal parts of speech are 17.
        dropout: Probability of dropping a feature of the stream while training.

    Raises:
        ValueError: There are fewer than two tags.
    """

    answers: ClassVar[Answer] = "tag"

    def __init__(self, vocab_size: int, d_model: int, /, *, n_tags: int = 17, dropout: float = 0.0) -> None:
        super().__init__(vocab_size, d_model)
        if n_tags < 2:
            raise ValueError(f"n_tags must be at least 2, but got {n_tags}.")
        self.dropout = nn.Dropout(dropout)
        self.to_logits = nn.Linear(d_model, n_tags)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        return self.to_logits(self.dropout(x))

    def loss(self, x: Tensor, layout: Layout, targets: Tensor) -> Tensor:
        return linear_cross_entropy(self.dropout(x), self.to_logits.weight, self.to_logits.bias, targets)
