"""Gated recurrent unit: a reset gate and an update gate decide what of the past is read and what is kept.

Cho et al. 2014, https://arxiv.org/abs/1406.1078
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State
from blocks.recurrent._fused import must_look_back, must_read_every_token, run
from blocks.recurrent._width import width_of
from registry import register


@dataclass(frozen=True, slots=True)
class Hidden(State):
    """The hidden state after the last token."""

    hidden: Tensor  # (B, d_hidden)


@register("recurrent/gru")
class GRU(Mixer[Hidden]):
    """A recurrence with two gates and one state; one direction, or both where the mask is full.

    Args:
        d_hidden: Width of the hidden state in each direction. None: ``d_model``.
        dropout: Probability of dropping a hidden feature on its way out while training.

    Raises:
        ValueError: ``d_hidden`` is not positive; the mask is neither plainly causal nor full.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, d_hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, "a GRU")
        d_hidden = width_of(d_hidden, d_model)
        directions = 1 if mask.causal else 2
        self.cell = nn.GRU(d_model, d_hidden, batch_first=True, bidirectional=not mask.causal)
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(directions * d_hidden, d_model)

    def forward(
        self, x: Tensor, layout: Layout, state: Hidden | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Hidden | None]:
        y, carried = run(self.cell, x, layout, () if state is None else (state.hidden,))
        return self.to_out(self.dropout(y)), None if state is None else Hidden(*carried)

    def empty_state(self, rows: int, capacity: int) -> Hidden:
        must_look_back(self.mask, "GRU")
        return Hidden(self.to_out.weight.new_zeros(rows, self.cell.hidden_size))

    def cost(self, length: int) -> Cost:
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=length)

    def path(self, distance: int, length: int) -> Path:
        return Path(1, distance)
