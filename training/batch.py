"""What data gives and a model takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from blocks.contracts import IGNORE, Layout


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
