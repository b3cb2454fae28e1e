"""A memory that is corrected key by key, and forgets altogether when a token says so.

Yang et al. 2024, https://arxiv.org/abs/2412.06464
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import both_ways, delta, empty_sum, require_causal, require_plain, unit
from blocks.linear._cost import delta_flops, scan_cost, scan_path
from blocks.linear._decay import TimeStep
from blocks.linear._short import Convolved, ShortConvolution, aligned, restored
from registry import register


@register("linear/gated_delta_net")
class GatedDeltaNet(Mixer[Convolved]):
    """``S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T``: the delta rule with one decay a head and token.

    Under a full mask what is read is the mean of the past, written in order, and of the future, written backwards.

    Args:
        n_heads: Heads.
        head_dim: Width of a key. None: three quarters of ``d_model / n_heads``.
        expand_v: Width of a value and its gate, in widths of a key.
        conv_size: Tokens that the convolution on queries, keys and values sees. 1: none but the token's own.

    Raises:
        ValueError: Without a ``head_dim``, ``4 n_heads`` does not divide ``3 d_model``; a choice is out of bounds;
            the mask leaves single tokens out.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        n_heads: int = 4,
        head_dim: int | None = None,
        expand_v: int = 2,
        conv_size: int = 4,
    ) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        for name, width in (("n_heads", n_heads), ("head_dim", head_dim), ("expand_v", expand_v)):
            if width is not None and width < 1:
                raise ValueError(f"{name} must be at least 1, but got {width}.")
        if head_dim is None and 3 * d_model % (4 * n_heads):
            raise ValueError(
                f"3 d_model must be a multiple of 4 n_heads, but got a d_model of {d_model} and {n_heads} heads. "
                "Or choose a head_dim."
            )
        self.n_heads = n_heads
        self.key_dim = head_dim or 3 * d_model // (4 * n_heads)
        self.value_dim = expand_v * self.key_dim
        keys, values = n_heads * self.key_dim, n_heads * self.value_dim
        self.to_q = nn.Linear(d_model, keys, bias=False)
        self.to_k = nn.Linear(d_model, keys, bias=False)
        self.to_v = declare(nn.Linear(d_model, values, bias=False), weight="value")
        self.to_beta = nn.Linear(d_model, n_heads, bias=False)
        self.to_decay = TimeStep(d_model, n_heads)
        self.conv = ShortConvolution(2 * keys + values, conv_size)
        self.norm = nn.RMSNorm(self.value_dim, eps=1e-5)
        self.to_gate = nn.Linear(d_model, values, bias=False)
        self.to_out = declare(nn.Linear(values, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Convolved | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Convolved | None]:
        x, layout, order = aligned(x, layout)
        qkv = torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], -1)
        beta = self.to_beta(x).sigmoid()
        _, log_decay = self.to_decay(x)

        if self.mask.causal:
            y, state = self._mix(layout, qkv, beta, log_decay, state)
        else:
            y = both_ways(lambda *tokens: self._mix(*tokens)[0], layout, qkv, beta, log_decay)

        y = self.norm(y.to(x.dtype)).flatten(2) * F.silu(self.to_gate(x))
        return self.to_out(restored(y, order)), state

    def empty_state(self, rows: int, capacity: int) -> Convolved:
        require_causal(self.mask, type(self).__name__)
        s = empty_sum(self.to_out.weight, rows, self.n_heads, self.key_dim, self.value_dim)
        return Convolved(s, self.conv.empty_tail(rows))

    def cost(self, length: int) -> Cost:
        return scan_cost(self, length, delta_flops, self.n_heads, self.key_dim, self.value_dim)

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _mix(
        self, layout: Layout, qkv: Tensor, beta: Tensor, log_decay: Tensor, state: Convolved | None = None
    ) -> tuple[Tensor, Convolved | None]:
        qkv, tail = self.conv(qkv, layout, None if state is None else state.tail)
        widths = [self.n_heads * width for width in (self.key_dim, self.key_dim, self.value_dim)]
        q, k, v = (t.unflatten(-1, (self.n_heads, -1)) for t in qkv.split(widths, -1))
        q, k = unit(q) * self.key_dim**-0.5, unit(k)
        y, s = delta(q, k, v, beta, log_decay, layout, None if state is None else state.s)
        return y, None if s is None or tail is None else Convolved(s, tail)
