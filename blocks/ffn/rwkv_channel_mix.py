"""RWKV's channel mix: each feature blended with that of the token before, a squared ReLU between, a gate behind.

Peng et al. 2023, https://arxiv.org/abs/2305.13048
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.contracts import Cost, Ffn, Layout, State, declare
from blocks.ffn._activation import relu2, width
from registry import register


@dataclass(frozen=True, slots=True)
class Previous(State):
    """The last real token of each row."""

    x: Tensor  # (B, 1, D)


@register("ffn/rwkv_channel_mix")
class RwkvChannelMix(Ffn):
    """A gated squared-ReLU feed-forward that sees, feature by feature, a blend of the token and the one before.

    Args:
        d_ff: Width between the two projections. None: 4 ``d_model``.

    Raises:
        ValueError: ``d_ff`` is not positive.
    """

    def __init__(self, d_model: int, /, *, d_ff: int | None = None) -> None:
        super().__init__(d_model)
        d_ff = width(d_ff, 4 * d_model)
        blend = torch.arange(d_model) / d_model  # the first features look back, the last ones do not
        self.gate_blend = nn.Parameter(blend.clone())
        self.hidden_blend = nn.Parameter(blend.clone())
        declare(self, gate_blend="dynamics", hidden_blend="dynamics")
        self.to_gate = nn.Linear(d_model, d_model, bias=False)
        self.to_hidden = nn.Linear(d_model, d_ff, bias=False)
        self.to_out = declare(nn.Linear(d_ff, d_model, bias=False), weight="writer")

    def forward(self, x: Tensor, layout: Layout, state: Previous | None = None) -> tuple[Tensor, Previous | None]:  # type: ignore[override]
        before, state = previous(x, layout, state)  # (B, T, D)
        gate = torch.sigmoid(self.to_gate(torch.lerp(before, x, self.gate_blend.to(x.dtype))))
        hidden = relu2(self.to_hidden(torch.lerp(before, x, self.hidden_blend.to(x.dtype))))  # (B, T, F)
        return gate * self.to_out(hidden), state

    def empty_state(self, rows: int) -> Previous:
        return Previous(self.to_gate.weight.new_zeros(rows, 1, self.d_model))

    def cost(self, length: int) -> Cost:
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        state = self.empty_state(1).bytes()
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=1)

    def reads(self, length: int) -> Tensor:
        return torch.ones(length, length, dtype=torch.bool).tril().triu(-1)  # itself and the one before


def previous(x: Tensor, layout: Layout, state: Previous | None) -> tuple[Tensor, Previous | None]:
    """The real token before each one, zero before a document's first, and the last one of all.

    Padding is passed over, wherever it stands. (B, T, D) -> (B, T, D)
    """
    if state is None and layout.dense:
        return F.pad(x, (0, 0, 1, -1)), None
    past = torch.zeros_like(x[:, :1]) if state is None else state.x.to(x.dtype)
    wide = torch.cat([past, x], dim=1)
    place = torch.where(layout.real, torch.ones_like(layout.position).cumsum(1), 0).cummax(dim=1).values
    earlier = F.pad(place, (1, -1))  # (B, T), in ``wide``
    before = wide.gather(1, earlier.unsqueeze(-1).expand_as(x))
    before = before.masked_fill((layout.position <= 0).unsqueeze(-1), 0.0)
    if state is None:
        return before, None
    return before, Previous(wide.gather(1, place[:, -1:, None].expand_as(past)).to(state.x.dtype))
