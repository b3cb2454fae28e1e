"""A vector of its own for each token.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762 (scaled by the root of its width)
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from blocks.contracts import Embedding, Layout
from blocks.projection import project
from registry import register


@register("embedding/token")
class TokenEmbedding(Embedding):
    """Looks each token up in a table.

    Args:
        scale: What the vector is multiplied by on its way in: nothing, or the root of d_model.

    Raises:
        ValueError: ``scale`` is neither.
    """

    def __init__(self, vocab_size: int, d_model: int, /, *, scale: Literal["none", "root"] = "none") -> None:
        super().__init__(vocab_size, d_model)
        if scale not in ("none", "root"):
            raise ValueError(f"scale must be none or root, but got {scale!r}.")
        self.scale = math.sqrt(d_model) if scale == "root" else 1.0
        self.table = nn.Embedding(vocab_size, d_model)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        x = self.table(tokens)  # (B, T, D)
        return x if self.scale == 1.0 else x * self.scale

    def unembed(self, x: Tensor) -> Tensor:
        return project(x, self.table.weight)
