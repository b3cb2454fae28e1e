"""A narrow vector of its own for each token, and one projection that widens all of them.

Lan et al. 2019, https://arxiv.org/abs/1909.11942
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Embedding, Layout
from blocks.projection import project
from registry import register


@register("embedding/factorised")
class FactorisedEmbedding(Embedding):
    """Looks each token up in a narrow table and projects it to the stream.

    Args:
        d_embedding: Width of the table.

    Raises:
        ValueError: ``d_embedding`` is not positive.
    """

    def __init__(self, vocab_size: int, d_model: int, /, *, d_embedding: int = 64) -> None:
        super().__init__(vocab_size, d_model)
        if d_embedding <= 0:
            raise ValueError(f"d_embedding must be positive, but got {d_embedding}.")
        self.table = nn.Embedding(vocab_size, d_embedding)
        self.to_stream = nn.Linear(d_embedding, d_model, bias=False)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        return self.to_stream(self.table(tokens))

    def unembed(self, x: Tensor) -> Tensor:
        narrow = project(x, self.to_stream.weight.T)  # (..., D) -> (..., d_embedding)
        return project(narrow, self.table.weight)
