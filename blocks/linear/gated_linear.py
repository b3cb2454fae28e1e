"""Linear attention in which each key channel forgets at a rate that the token sets.

Yang et al. 2023, https://arxiv.org/abs/2312.06635
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import Outer, both_ways, channels, empty_sum, require_causal, require_plain
from blocks.linear._cost import channels_flops, scan_cost, scan_path
from registry import register


@register("linear/gated_linear")
class GatedLinear(Mixer[Outer]):
    """Gated linear attention (GLA): ``S_t = diag(a_t) S_{t-1} + k_t v_t^T``, normed by head and gated.

    Under a full mask what is read is the mean of the past and of the future, both with the token itself.

    Args:
        n_heads: Heads; divides ``d_model / 2``, the width of all keys, and ``d_model``, that of all values.
        rank: Width of the bottleneck through which a token sets its decays.
        temperature: The decay is a sigmoid to the power of 1 / temperature: the greater, the longer the memory.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model / 2``; the mask leaves single tokens out.
    """

    def __init__(
        self, d_model: int, mask: Mask, /, *, n_heads: int = 4, rank: int = 16, temperature: float = 16.0
    ) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        if n_heads < 1 or d_model % (2 * n_heads):
            raise ValueError(f"d_model must be a multiple of 2 n_heads, but got {d_model} and {n_heads} heads.")
        if rank < 1 or temperature <= 0:
            raise ValueError(f"rank and temperature must be positive, but got {rank} and {temperature}.")
        self.n_heads = n_heads
        self.temperature = temperature
        self.key_dim = d_model // (2 * n_heads)
        self.value_dim = d_model // n_heads
        self.to_q = nn.Linear(d_model, d_model // 2, bias=False)
        self.to_k = nn.Linear(d_model, d_model // 2, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        self.to_decay = nn.Sequential(nn.Linear(d_model, rank, bias=False), nn.Linear(rank, d_model // 2))
        self.to_gate = nn.Linear(d_model, d_model)
        self.norm = nn.RMSNorm(self.value_dim, eps=1e-5)
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Outer | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Outer | None]:
        maps = self.to_q, self.to_k, self.to_v, self.to_decay
        q, k, v, decay = (cast(Tensor, to(x)).unflatten(-1, (self.n_heads, -1)) for to in maps)
        q = q * self.key_dim**-0.5
        decay = F.logsigmoid(decay.to(torch.promote_types(decay.dtype, torch.float32))) / self.temperature

        if self.mask.causal:
            y, s = channels(q, k, v, decay, layout, None if state is None else state.s)
        else:
            y, s = both_ways(lambda at, q, k, v, g: channels(q, k, v, g, at, None)[0], layout, q, k, v, decay), None

        y = self.norm(y.to(x.dtype)).flatten(2) * F.silu(self.to_gate(x))
        return self.to_out(y), None if s is None else Outer(s)

    def empty_state(self, rows: int, capacity: int) -> Outer:
        require_causal(self.mask, type(self).__name__)
        return Outer(empty_sum(self.to_out.weight, rows, self.n_heads, self.key_dim, self.value_dim))

    def cost(self, length: int) -> Cost:
        return scan_cost(self, length, channels_flops, self.n_heads, self.key_dim, self.value_dim)

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)
