"""A score for each token of the vocabulary, by a table of its own or the embedding's.

Press & Wolf 2016, https://arxiv.org/abs/1608.05859 (sharing the table)
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Embedding, Head, Layout
from blocks.head._cross_entropy import linear_cross_entropy
from registry import register


@register("head/linear")
class LinearHead(Head):
    """Scores every token of the vocabulary for each token of the stream.

    Args:
        bias: Whether each score has a bias.
    """

    def __init__(self, vocab_size: int, d_model: int, /, *, bias: bool = False) -> None:
        super().__init__(vocab_size, d_model)
        self.to_logits = nn.Linear(d_model, vocab_size, bias=bias)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        return self.to_logits(self._scaled(x))

    def loss(self, x: Tensor, layout: Layout, targets: Tensor) -> Tensor:
        return linear_cross_entropy(self._scaled(x), self.to_logits.weight, self.to_logits.bias, targets)

    def tie(self, embedding: Embedding) -> None:
        table = getattr(getattr(embedding, "table", None), "weight", None)
        own = self.to_logits.weight
        if table is None or table.shape != own.shape:
            raise ValueError(
                f"a tied table must have the shape {tuple(own.shape)}, but got "
                f"{None if table is None else tuple(table.shape)} from {type(embedding).__name__}. "
                "Set model.tie=false, or choose head=tied."
            )
        self.to_logits.weight = table

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.multiplier == 1.0 else x * self.multiplier
