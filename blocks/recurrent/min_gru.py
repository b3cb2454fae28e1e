"""The minimal GRU: its gate looks at the token alone, so that all states can be computed at once.

The paper adds up logarithms, which needs candidates above zero. The candidates are the paper's; the states
are scanned as they are, since gates below one can neither overflow nor, like sums of logarithms, lose digits.

Feng et al. 2024, https://arxiv.org/abs/2410.01201 (appendix B: candidates above zero)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.lines import exact
from blocks.recurrent._fused import must_look_back, must_read_every_token
from blocks.recurrent._scan import rounds, scan_both_ways, scan_documents
from blocks.recurrent._width import width_of
from registry import register


@dataclass(frozen=True, slots=True)
class Hidden(State):
    """The hidden state after the last token, in float32 at least."""

    hidden: Tensor  # (B, d_hidden)


@register("recurrent/min_gru")
class MinGRU(Mixer[Hidden]):
    """A running average whose weight each token decides; one direction, or both where the mask is full.

    Args:
        d_hidden: Width of the hidden state in each direction. None: ``d_model``.
        dropout: Probability of dropping a hidden feature on its way out while training.

    Raises:
        ValueError: ``d_hidden`` is not positive; the mask is neither plainly causal nor full.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, d_hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, type(self).__name__)
        self.d_hidden = width_of(d_hidden, d_model)
        width = self.d_hidden if mask.causal else 2 * self.d_hidden
        self.to_update = nn.Linear(d_model, width)
        self.to_candidate = nn.Linear(d_model, width)
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(width, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Hidden | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Hidden | None]:
        update, candidate = exact(self.to_update(x)), positive(exact(self.to_candidate(x)))
        keep, write = torch.sigmoid(-update), torch.sigmoid(update) * candidate
        if self.mask.causal:
            h = scan_documents(keep, write, layout, None if state is None else state.hidden)
        else:
            h = scan_both_ways(keep, write, layout)
        y = self.to_out(self.dropout(h.to(x.dtype)))
        return y, None if state is None else Hidden(h[:, -1].clone())

    def empty_state(self, rows: int, capacity: int) -> Hidden:
        must_look_back(self.mask, type(self).__name__)
        return Hidden(exact(self.to_out.weight.new_zeros(rows, self.d_hidden)))

    def cost(self, length: int) -> Cost:
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=rounds(length))

    def path(self, distance: int, length: int) -> Path:
        return Path(1, rounds(distance + 1))


def positive(x: Tensor) -> Tensor:
    """A candidate above zero: sigmoid below, a straight line of the same value and nearly the same slope above."""
    return torch.where(x < 0, torch.sigmoid(x), F.relu(x) + 0.5)
