"""A memory that is corrected: what a key recalls is replaced by its new value, not added to.

Schlag et al. 2021, https://arxiv.org/abs/2102.11174
Yang et al. 2024, https://arxiv.org/abs/2406.06484
Grazzi et al. 2024, https://arxiv.org/abs/2411.12537 (``max_beta`` of 2)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import both_ways, delta, empty_sum, require_causal, require_plain, unit
from blocks.linear._cost import delta_flops, scan_cost, scan_path
from blocks.linear._short import Convolved, ShortConvolution, aligned, restored
from registry import register


@register("linear/delta_net")
class DeltaNet(Mixer[Convolved]):
    """``S_t = (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T`` with keys of length one, after a short convolution.

    Under a full mask what is read is the mean of the past, written in order, and of the future, written backwards.

    Args:
        n_heads: Heads; divides ``d_model``.
        conv_size: Tokens that the convolution on queries, keys and values sees. 1: none but the token's own.
        max_beta: How far a value may replace the old one. 1: all the way. 2: past it, so that a sign can flip.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``; a choice is out of bounds; the mask leaves single
            tokens out.
    """

    def __init__(
        self, d_model: int, mask: Mask, /, *, n_heads: int = 4, conv_size: int = 4, max_beta: float = 1.0
    ) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if not 0 < max_beta <= 2:
            raise ValueError(f"max_beta must be above 0 and at most 2, where memories grow, but got {max_beta}.")
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.max_beta = max_beta
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        self.to_beta = nn.Linear(d_model, n_heads, bias=False)
        self.conv = ShortConvolution(3 * d_model, conv_size)
        self.norm = nn.RMSNorm(self.head_dim, eps=1e-5)
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Convolved | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Convolved | None]:
        x, layout, order = aligned(x, layout)
        qkv = torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], -1)
        beta = self.max_beta * self.to_beta(x).sigmoid()

        if self.mask.causal:
            y, state = self._mix(layout, qkv, beta, state)
        else:
            y = both_ways(lambda *tokens: self._mix(*tokens)[0], layout, qkv, beta)

        y = self.norm(y.to(x.dtype)).flatten(2)
        return self.to_out(restored(y, order)), state

    def empty_state(self, rows: int, capacity: int) -> Convolved:
        require_causal(self.mask, type(self).__name__)
        s = empty_sum(self.to_out.weight, rows, self.n_heads, self.head_dim, self.head_dim)
        return Convolved(s, self.conv.empty_tail(rows))

    def cost(self, length: int) -> Cost:
        return scan_cost(self, length, delta_flops, self.n_heads, self.head_dim, self.head_dim)

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _mix(
        self, layout: Layout, qkv: Tensor, beta: Tensor, state: Convolved | None = None
    ) -> tuple[Tensor, Convolved | None]:
        qkv, tail = self.conv(qkv, layout, None if state is None else state.tail)
        q, k, v = qkv.unflatten(-1, (3, self.n_heads, -1)).unbind(2)  # (B, T, H, K) each
        q, k = unit(q) * self.head_dim**-0.5, unit(k)
        y, s = delta(q, k, v, beta, None, layout, None if state is None else state.s)
        return y, None if s is None or tail is None else Convolved(s, tail)
