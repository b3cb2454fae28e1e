"""Gated recurrent unit: a reset gate and an update gate decide what of the past is read and what is kept.

    r, z = sigmoid(linear maps of x and h)          h <- z h + (1 - z) n
    n = tanh(W x + b + r * (U h + c))                the reset gate after the product (cuDNN, torch)
    n = tanh(W x + b + U (r * h) + c)                before it (Cho et al.)

Cho et al. 2014, https://arxiv.org/abs/1406.1078
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
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
        reset: Where the reset gate acts: after the product with the hidden state (torch's form, one fused kernel),
            or before it (Cho et al.'s form, a loop over tokens).
        dropout: Probability of dropping a hidden feature on its way out while training.

    Raises:
        ValueError: ``d_hidden`` is not positive; ``reset`` is neither; the mask is neither plainly causal nor full.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        d_hidden: int | None = None,
        reset: Literal["after", "before"] = "after",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, type(self).__name__)
        if reset not in ("after", "before"):
            raise ValueError(f"reset must be after or before, but got {reset!r}.")
        d_hidden = width_of(d_hidden, d_model)
        directions = 1 if mask.causal else 2
        cell = nn.GRU if reset == "after" else ResetBefore
        self.cell = cell(d_model, d_hidden, batch_first=True, bidirectional=not mask.causal)
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


class ResetBefore(nn.GRU):
    """One layer of ``nn.GRU``, batch first, whose reset gate acts before the product with the hidden state."""

    def forward(  # type: ignore[override]
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """(B, T, D) or as many tokens packed, (directions, B, H) -> the same with H or 2 H features, the last states"""
        if isinstance(input, PackedSequence):
            x, sizes = input.data, input.batch_sizes.tolist()
        else:
            x, sizes = input.transpose(0, 1).flatten(0, 1), [input.shape[0]] * input.shape[1]
        outputs, lasts = [], []
        for direction, weights in enumerate(self.all_weights):
            start = x.new_zeros(sizes[0], self.hidden_size) if hx is None else hx[direction]
            y, last = _recur(x, sizes, start, weights, backwards=direction == 1)
            outputs.append(y)
            lasts.append(last)
        y = torch.cat(outputs, dim=-1)
        if isinstance(input, PackedSequence):
            return input._replace(data=y), torch.stack(lasts)
        return y.unflatten(0, (len(sizes), -1)).transpose(0, 1), torch.stack(lasts)


def _recur(
    x: Tensor, sizes: list[int], start: Tensor, weights: Sequence[Tensor], backwards: bool
) -> tuple[Tensor, Tensor]:
    """Step by step through N tokens, the first ones of all rows first. (N, D), (B, H) -> (N, H), (B, H)

    ``sizes`` says how many rows have a first, second, ... token; rows stand longest first.
    """
    W, U, b, c = weights
    H = start.shape[1]
    gates_of_x, new_of_x = F.linear(x, W, b).split([2 * H, H], dim=-1)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    h, outputs = start, []
    for size, end in reversed(list(zip(sizes, ends, strict=True))) if backwards else zip(sizes, ends, strict=True):
        at, old = slice(end - size, end), h[:size]
        reset, update = torch.sigmoid(gates_of_x[at] + F.linear(old, U[: 2 * H], c[: 2 * H])).chunk(2, dim=-1)
        new = torch.tanh(new_of_x[at] + F.linear(reset * old, U[2 * H :], c[2 * H :]))
        now = update * old + (1 - update) * new
        outputs.append(now)
        h = torch.cat([now, h[size:]])  # rows that have ended, or not begun, stay as they are
    return torch.cat(outputs[::-1] if backwards else outputs), h
