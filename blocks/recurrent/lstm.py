"""Long short-term memory: gates write to, forget from and read out a cell that is only ever added to.

Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735
Gers et al. 2000 (the forget gate), https://doi.org/10.1162/089976600300015015
Jozefowicz et al. 2015 (its bias starts at 1), https://proceedings.mlr.press/v37/jozefowicz15.html
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.recurrent._fused import must_look_back, must_read_every_token, run
from blocks.recurrent._width import width_of
from registry import register


@dataclass(frozen=True, slots=True)
class HiddenAndCell(State):
    """What an LSTM carries from token to token."""

    hidden: Tensor  # (B, d_hidden)
    cell: Tensor  # (B, d_hidden)


@register("recurrent/lstm")
class LSTM(Mixer[HiddenAndCell]):
    """A recurrence with three gates and a memory cell; one direction, or both where the mask is full.

    A gate has two biases, one beside the token and one beside the hidden state, and only their sum counts. That of the
    forget gate is 1 at the start.

    Args:
        d_hidden: Width of the hidden state in each direction. None: ``d_model``.
        dropout: Probability of dropping a hidden feature on its way out while training.

    Raises:
        ValueError: ``d_hidden`` is not positive; the mask is neither plainly causal nor full.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, d_hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, type(self).__name__)
        d_hidden = width_of(d_hidden, d_model)
        directions = 1 if mask.causal else 2
        self.cell = nn.LSTM(d_model, d_hidden, batch_first=True, bidirectional=not mask.causal)
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(directions * d_hidden, d_model), weight="writer")
        forget_bias_(self.cell, 1.0)

    def forward(
        self, x: Tensor, layout: Layout, state: HiddenAndCell | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, HiddenAndCell | None]:
        y, carried = run(self.cell, x, layout, () if state is None else (state.hidden, state.cell))
        return self.to_out(self.dropout(y)), None if state is None else HiddenAndCell(*carried)

    def empty_state(self, rows: int, capacity: int) -> HiddenAndCell:
        must_look_back(self.mask, type(self).__name__)
        zeros = self.to_out.weight.new_zeros(rows, self.cell.hidden_size)
        return HiddenAndCell(zeros, zeros.clone())

    def cost(self, length: int) -> Cost:
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=length)

    def path(self, distance: int, length: int) -> Path:
        return Path(1, distance)


@torch.no_grad()
def forget_bias_(cell: nn.LSTM, start: float) -> None:
    """Set the bias of the forget gates, the sum of two, in every direction. (They are the second of torch's four.)"""
    forget = slice(cell.hidden_size, 2 * cell.hidden_size)
    for _, _, beside_token, beside_hidden in cell.all_weights:
        beside_token[forget] = start
        beside_hidden[forget] = 0.0
