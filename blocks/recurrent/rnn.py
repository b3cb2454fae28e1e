"""The Elman network: each hidden state is a nonlinear mixture of the token and the state before it.

Elman 1990, https://doi.org/10.1207/s15516709cog1402_1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.recurrent._fused import must_look_back, must_read_every_token, run
from blocks.recurrent._width import width_of
from registry import register


@dataclass(frozen=True, slots=True)
class Hidden(State):
    """The hidden state after the last token."""

    hidden: Tensor  # (B, d_hidden)


@register("recurrent/rnn")
class RNN(Mixer[Hidden]):
    """A plain recurrence, h = act(W x + U h + b); one direction, or both where the mask is full.

    Args:
        d_hidden: Width of the hidden state in each direction. None: ``d_model``.
        nonlinearity: What bends the sum: tanh or relu.
        dropout: Probability of dropping a hidden feature on its way out while training.

    Raises:
        ValueError: ``d_hidden`` is not positive; the mask is neither plainly causal nor full.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        d_hidden: int | None = None,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, type(self).__name__)
        d_hidden = width_of(d_hidden, d_model)
        directions = 1 if mask.causal else 2
        self.cell = nn.RNN(
            d_model, d_hidden, nonlinearity=nonlinearity, batch_first=True, bidirectional=not mask.causal
        )
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(directions * d_hidden, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Hidden | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Hidden | None]:
        y, carried = run(self.cell, x, layout, () if state is None else (state.hidden,))
        return self.to_out(self.dropout(y)), None if state is None else Hidden(*carried)

    def empty_state(self, rows: int, capacity: int) -> Hidden:
        must_look_back(self.mask, type(self).__name__)
        return Hidden(self.to_out.weight.new_zeros(rows, self.cell.hidden_size))

    def cost(self, length: int) -> Cost:
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=length)

    def path(self, distance: int, length: int) -> Path:
        return Path(1, distance)
