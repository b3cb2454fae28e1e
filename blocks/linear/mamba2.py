"""A selective state space whose every head fades as one, so that training is a masked product (SSD).

Dao and Gu 2024, https://arxiv.org/abs/2405.21060
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import both_ways, empty_sum, fading, require_causal, require_plain
from blocks.linear._cost import fading_flops, scan_cost, scan_path
from blocks.linear._decay import TimeStep
from blocks.linear._short import Convolved, ShortConvolution, aligned, restored
from registry import register


@register("linear/mamba2")
class Mamba2(Mixer[Convolved]):
    """``h_t = exp(-dt_t A) h_{t-1} + B_t (dt_t x_t)^T``, read as ``y_t = C_t h_t + D x_t``, then gated and normed.

    In this family's names ``C`` is the query, ``B`` the key and ``x`` the value. Under a full mask what is read is
    the mean of the past and of the future, both with the token itself.

    Args:
        d_state: Width of the state a channel: of ``B`` and ``C``.
        head_dim: Channels that fade together.
        expand: Channels in all, in widths of the model; a multiple of ``head_dim``.
        n_groups: Groups of heads, each with its own ``B`` and ``C``.
        conv_size: Tokens that the convolution on ``x``, ``B`` and ``C`` sees. 1: none but the token's own.

    Raises:
        ValueError: The channels do not divide into heads, or the heads into groups; a choice is out of bounds; the
            mask leaves single tokens out.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        d_state: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        n_groups: int = 1,
        conv_size: int = 4,
    ) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        sizes = {"d_state": d_state, "head_dim": head_dim, "expand": expand, "n_groups": n_groups}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, but got {size}.")
        d_inner = expand * d_model
        if d_inner % head_dim:
            raise ValueError(
                f"expand * d_model must be a multiple of head_dim, but got {expand} * {d_model} and {head_dim}."
            )
        n_heads = d_inner // head_dim
        if n_heads % n_groups:
            raise ValueError(f"n_groups must divide the {n_heads} heads, but got {n_groups}.")
        self.n_heads = n_heads
        self.n_groups = n_groups
        self.head_dim = head_dim
        self.d_state = d_state
        self.to_q = nn.Linear(d_model, n_groups * d_state, bias=False)
        self.to_k = nn.Linear(d_model, n_groups * d_state, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_inner, bias=False), weight="value")
        self.to_decay = TimeStep(d_model, n_heads)
        self.conv = ShortConvolution(2 * n_groups * d_state + d_inner, conv_size, bias=True)
        self.skip = nn.Parameter(torch.ones(n_heads))
        declare(self, skip="gain")
        self.to_gate = nn.Linear(d_model, d_inner, bias=False)
        self.norm = nn.RMSNorm(d_inner, eps=1e-5)
        self.to_out = declare(nn.Linear(d_inner, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Convolved | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Convolved | None]:
        x, layout, order = aligned(x, layout)
        qkv = torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], -1)
        dt, log_decay = self.to_decay(x)

        if self.mask.causal:
            y, state = self._mix(layout, qkv, dt, log_decay, state)
        else:
            y = both_ways(lambda *tokens: self._mix(*tokens)[0], layout, qkv, dt, log_decay)

        y = self.norm(y.flatten(2).to(x.dtype) * F.silu(self.to_gate(x)))
        return self.to_out(restored(y, order)), state

    def empty_state(self, rows: int, capacity: int) -> Convolved:
        require_causal(self.mask, type(self).__name__)
        s = empty_sum(self.to_out.weight, rows, self.n_heads, self.d_state, self.head_dim)
        return Convolved(s, self.conv.empty_tail(rows))

    def cost(self, length: int) -> Cost:
        flops = partial(fading_flops, pair_dim=self.d_state * (1 if self.n_groups == 1 else self.n_heads))
        return scan_cost(self, length, flops, self.n_heads, self.d_state, self.head_dim)

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _mix(
        self, layout: Layout, qkv: Tensor, dt: Tensor, log_decay: Tensor, state: Convolved | None = None
    ) -> tuple[Tensor, Convolved | None]:
        qkv, tail = self.conv(qkv, layout, None if state is None else state.tail)
        shared = self.n_groups * self.d_state
        q, k, v = qkv.split([shared, shared, self.n_heads * self.head_dim], -1)
        q, k = (t.unflatten(-1, (self.n_groups, -1)) for t in (q, k))  # (B, T, n_groups, d_state)
        if self.n_groups > 1:
            q, k = (t.repeat_interleave(self.n_heads // self.n_groups, 2) for t in (q, k))
        v = v.unflatten(-1, (self.n_heads, -1))
        y, s = fading(q, k, v * dt[..., None], log_decay, layout, None if state is None else state.s)
        y = y + self.skip[:, None] * v
        return y, None if s is None or tail is None else Convolved(s, tail)
