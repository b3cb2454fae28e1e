"""The word window: a token and its nearest neighbours, put side by side and read by one linear map.

Collobert et al. 2011, https://arxiv.org/abs/1103.0398
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, declare
from blocks.convolution._mask import must_be_plain, must_look_back, near
from blocks.lines import Recent, line_up, neighbours
from registry import register

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


@register("convolution/word_window")
class WordWindow(Mixer[Recent]):
    """A linear map and a nonlinearity over each token and its neighbours, side by side.

    Args:
        size: Neighbours on each side; behind only, where the mask is causal.
        d_hidden: Width of what is made of a window. None: ``d_model``.
        activation: What bends it: relu, gelu, silu or tanh.
        dropout: Probability of dropping a feature of it while training.

    Raises:
        ValueError: ``size`` or ``d_hidden`` is not positive; the mask is neither plainly causal nor full.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        size: int = 2,
        d_hidden: int | None = None,
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, mask)
        must_be_plain(mask, type(self).__name__)
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        d_hidden = d_model if d_hidden is None else d_hidden
        if d_hidden < 1:
            raise ValueError(f"d_hidden must be at least 1, but got {d_hidden}.")
        self.back = size
        self.ahead = 0 if mask.causal else size
        self.act = ACTIVATIONS[activation]
        self.to_hidden = nn.Linear((self.back + 1 + self.ahead) * d_model, d_hidden)
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(d_hidden, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Recent | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Recent | None]:
        line = line_up(x, layout, state)
        words = neighbours(line.x, line.run, self.back, self.ahead)
        window = torch.cat([line.restore(word) for word in words], dim=-1)  # (B, T, words · D)
        y = self.to_out(self.dropout(self.act(self.to_hidden(window))))
        return y, None if state is None else line.recent(state)

    def empty_state(self, rows: int, capacity: int) -> Recent:
        must_look_back(self.mask, type(self).__name__)
        return Recent.empty(self.to_out.weight, rows, self.back, self.d_model)

    def cost(self, length: int) -> Cost:
        weights = self.to_hidden.weight.numel() + self.to_out.weight.numel()
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, state, steps=1)

    def reads(self, length: int) -> Tensor:
        return near(self.mask.pairs(length), self.back)
