"""Griffin's recurrent block: a short convolution, a gated linear recurrence, and a gate on what it says.

    u = short convolution of a linear map of x
    r, i = sigmoid(linear maps of u)          a = sigmoid(base) ** (8 r)
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t u_t
    y = to_out(h * gelu(linear map of x))

De et al. 2024, https://arxiv.org/abs/2402.19427
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.lines import Recent, convolve_near, exact, line_up
from blocks.recurrent._fused import must_look_back, must_read_every_token
from blocks.recurrent._scan import rounds, scan_documents
from blocks.recurrent._width import width_of
from registry import register

SHARPNESS = 8.0
"""How much further than its base a fully open gate takes a decay, as a power."""

SLOWEST, FASTEST = 0.999, 0.9
"""What is left after one token at the start, where the gate is open."""


@dataclass(frozen=True, slots=True)
class Griffin(State):
    """What the convolution looks back at, and the recurrence's own state."""

    recent: Recent  # (B, size - 1, H)
    hidden: Tensor  # (B, H), in float32 at least


@register("recurrent/rg_lru")
class RGLRU(Mixer[Griffin]):
    """A gated linear recurrence behind a short convolution; both ways where the mask is full.

    Args:
        d_hidden: Width of the recurrence. None: ``d_model``.
        size: Taps of the convolution, the token's own counted; as many again ahead of it where the mask is full.
        dropout: Probability of dropping a hidden feature on its way out while training.

    Raises:
        ValueError: ``size`` or ``d_hidden`` is not positive; the mask is neither plainly causal nor full.
    """

    def __init__(
        self, d_model: int, mask: Mask, /, *, d_hidden: int | None = None, size: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, type(self).__name__)
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        self.d_hidden = d_hidden = width_of(d_hidden, d_model)
        self.size = size
        self.ahead = 0 if mask.causal else size - 1
        n_taps = size + self.ahead
        self.to_gate = nn.Linear(d_model, d_hidden)
        self.to_hidden = nn.Linear(d_model, d_hidden)
        self.taps = nn.Parameter((2 * torch.rand(n_taps, d_hidden) - 1) / n_taps**0.5)  # oldest first
        self.bias = nn.Parameter(torch.zeros(d_hidden))
        declare(self, taps="matrix", bias="bias")
        self.there = Recurrence(d_hidden)
        self.back = None if mask.causal else Recurrence(d_hidden)
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(d_hidden, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Griffin | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Griffin | None]:
        line = line_up(self.to_hidden(x), layout, None if state is None else state.recent)
        u = line.restore(convolve_near(line.x, self.taps, line.run, self.ahead)) + self.bias  # (B, T, H)

        keep, add = self.there(u)
        h = scan_documents(keep, add, layout, None if state is None else state.hidden)
        if state is not None:
            state = Griffin(line.recent(state.recent), h[:, -1].clone())
        if self.back is not None:
            keep, add = self.back(u)
            h = h + scan_documents(keep, add, layout, reverse=True)
        y = h.to(x.dtype) * F.gelu(self.to_gate(x), approximate="tanh")
        return self.to_out(self.dropout(y)), state

    def empty_state(self, rows: int, capacity: int) -> Griffin:
        must_look_back(self.mask, type(self).__name__)
        recent = Recent.empty(self.taps, rows, self.size - 1, self.d_hidden)
        return Griffin(recent, exact(self.taps.new_zeros(rows, self.d_hidden)))

    def cost(self, length: int) -> Cost:
        H = self.d_hidden
        weights = 3 * self.d_model * H + (1 if self.back is None else 2) * 2 * H * H
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=1 + rounds(length))

    def path(self, distance: int, length: int) -> Path:
        return Path(1, 1 + rounds(distance + 1))


class Recurrence(nn.Module):
    """What each token keeps of the past and what it adds, decided by the token."""

    def __init__(self, d_hidden: int) -> None:
        super().__init__()
        self.to_decay = nn.Linear(d_hidden, d_hidden)
        self.to_input = nn.Linear(d_hidden, d_hidden)
        base = (FASTEST + (SLOWEST - FASTEST) * torch.rand(d_hidden)) ** (1 / SHARPNESS)
        self.base = nn.Parameter(torch.logit(base))
        declare(self, base="dynamics")

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, H) -> what is kept, what is added, in float32 at least: (B, T, H) each"""
        log_a = SHARPNESS * torch.sigmoid(exact(self.to_decay(u))) * F.logsigmoid(exact(self.base))
        added = torch.sigmoid(exact(self.to_input(u))) * exact(u)
        size = -torch.expm1(2 * log_a)  # 1 - a^2
        return log_a.exp(), size.clamp_min(torch.finfo(size.dtype).tiny).sqrt() * added
