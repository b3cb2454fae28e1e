"""Linear attention whose features are the Taylor series of exp to the second order: ``1 + q.k + (q.k)^2 / 2``.

Arora et al. 2024, https://arxiv.org/abs/2402.18668
Zhang et al. 2024, https://arxiv.org/abs/2402.04347
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, declare
from blocks.linear._chunked import Kernel, Outer, empty_sum, require_causal, require_plain
from blocks.linear._cost import mean_cost, scan_path
from blocks.linear._normalised import weighted_mean
from registry import register

SPAN = 16
"""Chunks whose features are in memory at one time."""


@register("linear/based")
class Based(Mixer[Outer]):
    """Queries and keys of few channels, whose weights are near to softmax's and never negative.

    Published in turn with layers of sliding-window attention, which read the nearest tokens exactly.

    Args:
        n_heads: Heads; divides ``d_model``.
        feature_dim: Width of a head's queries and keys; they become ``1 + f + f (f + 1) / 2`` features.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``; no channels; the mask leaves single tokens out.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, n_heads: int = 8, feature_dim: int = 16) -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if feature_dim < 1:
            raise ValueError(f"feature_dim must be at least 1, but got {feature_dim}.")
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.feature_dim = feature_dim
        self.n_features = 1 + feature_dim + feature_dim * (feature_dim + 1) // 2
        self.to_q = nn.Linear(d_model, n_heads * feature_dim, bias=False)
        self.to_k = nn.Linear(d_model, n_heads * feature_dim, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Outer | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Outer | None]:
        q, k, v = (to(x).unflatten(-1, (self.n_heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        past, kernel = None if state is None else state.s, Kernel(self._pairs, self._write, self._read, self.n_features)
        y, s = weighted_mean(q, k, v, layout, past, causal=self.mask.causal, kernel=kernel)
        return self.to_out(y.flatten(2).to(x.dtype)), None if s is None else Outer(s)

    def empty_state(self, rows: int, capacity: int) -> Outer:
        require_causal(self.mask, type(self).__name__)
        return Outer(empty_sum(self.to_out.weight, rows, self.n_heads, self.n_features, self.head_dim + 1))

    def cost(self, length: int) -> Cost:
        return mean_cost(self, length, self.n_heads, self.n_features, self.head_dim, self.n_heads * self.feature_dim)

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _pairs(self, q: Tensor, k: Tensor) -> Tensor:
        """What ``_features`` come to, without them."""
        score = q @ k.mT * self.feature_dim**-0.5
        return 1 + score + score.square() / 2

    def _write(self, k: Tensor, v: Tensor) -> Tensor:
        return _forgetting(lambda k, v: self._features(k).mT @ v, k, v)

    def _read(self, q: Tensor, s: Tensor) -> Tensor:
        return _forgetting(lambda q, s: self._features(q) @ s, q, s)

    def _features(self, x: Tensor) -> Tensor:
        """One, the channels, and their products: twice what two channels make, so only once, and their squares."""
        x = x * self.feature_dim**-0.25
        products = [x[..., i, None] * x[..., i + 1 :] for i in range(self.feature_dim - 1)]
        return torch.cat([torch.ones_like(x[..., :1]), x, 0.5**0.5 * x * x, *products], -1)


def _forgetting(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """``product(a, b)``, a few chunks at a time, whose features are not kept but made again for the gradient.

    They would be most of what a forward keeps, and take longer to store than to make.
    """
    if not torch.is_grad_enabled():
        return product(a, b)
    parts = zip(a.split(SPAN), b.split(SPAN), strict=True)
    return torch.cat([checkpoint(product, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
