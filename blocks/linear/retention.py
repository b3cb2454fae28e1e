"""Attention without a softmax whose every head forgets at a fixed rate, turned by the distance, normed and gated.

Sun et al. 2023, https://arxiv.org/abs/2307.08621
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import Outer, both_ways, empty_sum, fading, require_causal, require_plain
from blocks.linear._cost import fading_flops, scan_cost, scan_path
from registry import register


@register("linear/retention")
class Retention(Mixer[Outer]):
    """Each head sums what its past says to the query, fading by its own factor, 1 - 2^-5 for the first, a token.

    Queries and keys are turned by their positions, so that their product knows the distance. The published scaling
    of scores and sums, one factor for a token and head, is left out: the norm of each head undoes it but for its eps of
    1e-5, which counts where a head's sums are nearly equal. Under a full mask the sum is the mean of one over the past
    and one over the future, both with the token itself.

    Args:
        n_heads: Heads; ``d_model / n_heads`` is the width of a key, and even.
        expand_v: Width of a value and its gate, in widths of a key.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model`` into even widths; ``expand_v`` is not positive; the mask
            leaves single tokens out.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, n_heads: int = 8, expand_v: int = 2) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        if n_heads < 1 or d_model % (2 * n_heads):
            raise ValueError(f"d_model must be a multiple of 2 n_heads, but got {d_model} and {n_heads} heads.")
        if expand_v < 1:
            raise ValueError(f"expand_v must be at least 1, but got {expand_v}.")
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.value_dim = expand_v * self.head_dim
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = declare(nn.Linear(d_model, expand_v * d_model, bias=False), weight="value")
        self.to_gate = nn.Linear(d_model, expand_v * d_model, bias=False)
        self.to_out = declare(nn.Linear(expand_v * d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Outer | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Outer | None]:
        q, k, v = (to(x).unflatten(-1, (self.n_heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        q, k = self._turn(q, layout), self._turn(k * self.head_dim**-0.5, layout)
        log_decay = self._log_decay(q).expand(1, x.shape[1], -1)

        if self.mask.causal:
            y, s = fading(q, k, v, log_decay, layout, None if state is None else state.s)
        else:
            y, s = both_ways(lambda at, q, k, v: fading(q, k, v, log_decay, at, None)[0], layout, q, k, v), None

        y = F.layer_norm(y, y.shape[-1:])
        y = y.flatten(2).to(x.dtype) * F.silu(self.to_gate(x))
        return self.to_out(y), None if s is None else Outer(s)

    def empty_state(self, rows: int, capacity: int) -> Outer:
        require_causal(self.mask, type(self).__name__)
        return Outer(empty_sum(self.to_out.weight, rows, self.n_heads, self.head_dim, self.value_dim))

    def cost(self, length: int) -> Cost:
        return scan_cost(self, length, fading_flops, self.n_heads, self.head_dim, self.value_dim)

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _log_decay(self, like: Tensor) -> Tensor:
        """(H,)"""
        head = torch.arange(self.n_heads, device=like.device, dtype=like.dtype)
        return torch.log1p(-torch.exp2(-5 - head))

    def _turn(self, x: Tensor, layout: Layout) -> Tensor:
        """Turn each pair of channels by its angle times the position; float32 at least. (B, T, H, K)"""
        wide = torch.promote_types(x.dtype, torch.float32)
        key = (type(self), self.head_dim, wide)
        cos, sin = layout.once(key, lambda: _angles(layout, self.head_dim // 2, wide))
        first, second = x.to(wide).chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _angles(layout: Layout, n_pairs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines for each token and pair, from a radian a token to 1 / 10,000. (B or 1, T, 1, K / 2) each"""
    position = layout.position[:1] if layout.dense else layout.position
    rate = 10_000.0 ** -torch.linspace(0, 1, n_pairs, device=position.device, dtype=dtype)
    angle = position[:, :, None, None] * rate
    return angle.cos(), angle.sin()
