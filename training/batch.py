"""What data gives and a model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from blocks.contracts import IGNORE, Layout

if TYPE_CHECKING:
    from training.contracts import TreeMaker


class Batch(NamedTuple):
    """One step's input. A NamedTuple, which Lightning moves to the device part by part.

    tokens: (B, T) int64. targets: (B, T) int64, or (B,) for whole rows; ``IGNORE`` where nothing is asked.
    layout: where the tokens sit. source, source_layout: the other sequence (B, S), for an encoder-decoder.
    step_seed: seeds the default generator for this micro-batch, so that dropout repeats after a resume.
    """

    tokens: Tensor
    targets: Tensor
    layout: Layout
    source: Tensor | None = None
    source_layout: Layout | None = None
    step_seed: int = 0

    @property
    def n_targets(self) -> Tensor:
        """How many targets are asked for, to weigh this batch's mean loss by; a scalar."""
        return (self.targets != IGNORE).sum()

    def with_trees(self, make: TreeMaker) -> Batch:
        """This batch with the trees that ``make`` finds in its rows, as they are shown to the model."""
        batch = self._replace(layout=governed(self.tokens, self.layout, make))
        if batch.source is None or batch.source_layout is None:
            return batch
        return batch._replace(source_layout=governed(batch.source, batch.source_layout, make))


def governed(tokens: Tensor, layout: Layout, make: TreeMaker) -> Layout:
    """``layout`` with the governor that ``make`` finds for each of ``tokens``. (B, T)"""
    index = torch.from_numpy(make(tokens.cpu().numpy())).to(layout.position.device)
    return layout._replace(heads=layout.position.gather(1, index))
