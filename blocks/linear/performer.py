"""Softmax attention in the mean over random features: ``E[phi(q).phi(k)] = exp(q.k / sqrt(K))``, so sums will do.

Choromanski et al. 2020, https://arxiv.org/abs/2009.14794
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import empty_sum, exact, require_causal, require_plain
from blocks.linear._cost import mean_cost, scan_path
from blocks.linear._normalised import Peaked, exponential_mean, peak_rounds
from registry import register


@register("linear/performer")
class Performer(Mixer[Peaked]):
    """Attention by positive orthogonal random features (FAVOR+), drawn once and saved with the model.

    Args:
        n_heads: Heads; divides ``d_model``.
        n_features: Random features of a head; the more, the closer to softmax. None: ``K ln K`` for heads K wide.
        seed: What the features are drawn from.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``; no features; the mask leaves single tokens out.
    """

    directions: Tensor

    def __init__(
        self, d_model: int, mask: Mask, /, *, n_heads: int = 8, n_features: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if n_features is not None and n_features < 1:
            raise ValueError(f"n_features must be at least 1, but got {n_features}.")
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.n_features = n_features or max(1, int(self.head_dim * math.log(self.head_dim)))
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")
        # Kept as the bits of float32: a cast of the model to bfloat16 must not round what is frozen.
        drawn = draw_directions(self.n_features, self.head_dim, seed).view(torch.int32)
        self.register_buffer("directions", drawn.to(torch.empty(0).device))

    def forward(
        self, x: Tensor, layout: Layout, state: Peaked | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Peaked | None]:
        q, k, v = (to(x).unflatten(-1, (self.n_heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        q, k = (t.to(torch.promote_types(t.dtype, torch.float32)) * self.head_dim**-0.25 for t in (q, k))
        shift = -k.square().sum(-1) / 2  # a feature is exp(w.x - |x|^2 / 2); of a query |x| cancels
        y, state = exponential_mean(
            self._along(q), self._along(k), v, layout, state, causal=self.mask.causal, shift=shift
        )
        return self.to_out(y.flatten(2).to(x.dtype)), state

    def empty_state(self, rows: int, capacity: int) -> Peaked:
        require_causal(self.mask, type(self).__name__)
        s = empty_sum(self.to_out.weight, rows, self.n_heads, self.n_features, self.head_dim + 1)
        return Peaked(s, torch.full_like(s[..., 0], -torch.inf))

    def cost(self, length: int) -> Cost:
        cost = mean_cost(self, length, self.n_heads, self.n_features, self.head_dim, fades=True)
        flops = cost.flops + 4 * length * self.n_heads * self.head_dim * self.n_features
        return cost._replace(flops=flops, steps=cost.steps + peak_rounds(length))

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _along(self, x: Tensor) -> Tensor:
        """How far each token points in each direction. (B, T, H, K) -> (B, T, H, F)"""
        with exact(x.device):
            return x @ self.directions.view(torch.float32).to(x.dtype).T


def draw_directions(n_features: int, head_dim: int, seed: int) -> Tensor:
    """Rows as long as normal vectors are, at right angles as far as there is room. (F, K)"""
    chance = torch.Generator("cpu").manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, device="cpu", dtype=torch.float32)

    q, r = torch.linalg.qr(normal(-(-n_features // head_dim), head_dim, head_dim))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # else LAPACK's signs favour one side, and the mean is off
    angles = q.flatten(0, 1)[:n_features]
    return angles * normal(n_features, head_dim).norm(dim=-1, keepdim=True)
