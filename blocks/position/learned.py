"""Learned position: a vector for each place, added to the token there.

Gehring et al. 2017, https://arxiv.org/abs/1705.03122
Devlin et al. 2018, https://arxiv.org/abs/1810.04805
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import EmbeddingPosition, Layout
from registry import register


@register("position/learned")
class Learned(EmbeddingPosition):
    """Adds row ``position`` of a learned table with ``max_length`` rows (Gehring et al., section 3.1).

    Args:
        std: Standard deviation of the table at the start, where the model's init leaves it alone.

    Raises:
        ValueError: In ``embed``: a position is past the table. Positions on a GPU are not read back to find that
            out (it would stall every step): a row of more tokens than the table has is refused there, and
            positions past the table in a shorter row stop the kernel that looks them up.
    """

    def __init__(self, d_model: int, max_length: int, /, *, std: float = 0.02) -> None:
        super().__init__(d_model, max_length)
        if std < 0:
            raise ValueError(f"std must not be negative, but got {std}.")
        self.table = nn.Embedding(max_length, d_model)
        nn.init.normal_(self.table.weight, std=std)

    def embed(self, x: Tensor, layout: Layout) -> Tensor:
        self._check(layout)
        position = layout.position[:1] if layout.dense else layout.position
        return x + self.table(position.clamp(min=0))

    def _check(self, layout: Layout) -> None:
        last = -1
        if layout.dense:
            last = layout.position.shape[1] - 1
        elif layout.position.device.type == "cpu" and layout.position.numel() and not torch.compiler.is_compiling():
            last = int(layout.position.max())
        if last >= self.table.num_embeddings:
            raise ValueError(
                f"positions must be below model.max_length, the {self.table.num_embeddings} rows of the learned "
                f"table, but got {last}."
            )
