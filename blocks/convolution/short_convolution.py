"""A short convolution: each channel is a weighted sum over a few neighbours, then channels are mixed.

Chollet 2016 (depthwise, then pointwise), https://arxiv.org/abs/1610.02357
Wu et al. 2019 (in place of attention), https://arxiv.org/abs/1901.10430
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, declare
from blocks.convolution._mask import must_be_plain, must_look_back, near
from blocks.lines import Recent, convolve_near, line_up
from registry import register


@register("convolution/short_convolution")
class ShortConvolution(Mixer[Recent]):
    """A few taps on every channel, a nonlinearity, and a linear map across channels.

    Args:
        size: Taps, the token's own counted; as many again ahead of it where the mask is full.
        activation: What bends a channel between the two: silu, or none, which Chollet found to learn better in images
            (section 4.7).
        dropout: Probability of dropping a channel of a token before the linear map while training.

    Raises:
        ValueError: ``size`` is not positive; ``activation`` is neither; the mask is neither plainly causal nor full.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        size: int = 4,
        activation: Literal["silu", "none"] = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, mask)
        must_be_plain(mask, type(self).__name__)
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        if activation not in ("silu", "none"):
            raise ValueError(f"activation must be silu or none, but got {activation!r}.")
        self.activation = activation
        self.back = size - 1
        self.ahead = 0 if mask.causal else size - 1
        n_taps = self.back + 1 + self.ahead
        self.taps = nn.Parameter((2 * torch.rand(n_taps, d_model) - 1) / n_taps**0.5)  # oldest first
        self.bias = nn.Parameter(torch.zeros(d_model))
        declare(self, taps="matrix", bias="bias")
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(d_model, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Recent | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Recent | None]:
        line = line_up(x, layout, state)
        y = line.restore(convolve_near(line.x, self.taps, line.run, self.ahead)) + self.bias
        y = self.to_out(self.dropout(F.silu(y) if self.activation == "silu" else y))
        return y, None if state is None else line.recent(state)

    def empty_state(self, rows: int, capacity: int) -> Recent:
        must_look_back(self.mask, type(self).__name__)
        return Recent.empty(self.to_out.weight, rows, self.back, self.d_model)

    def cost(self, length: int) -> Cost:
        parameters = sum(p.numel() for p in self.parameters())
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(parameters, 2 * length * self.to_out.weight.numel(), state, steps=1)

    def reads(self, length: int) -> Tensor:
        return near(self.mask.pairs(length), self.back)
