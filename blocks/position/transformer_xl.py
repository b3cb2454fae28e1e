"""Transformer-XL's relative position: scores of content and of distance, each with a bias of its own.

Dai et al. 2019, https://arxiv.org/abs/1901.02860
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.contracts import AttentionPosition, Layout, declare
from blocks.position.rotation import frequencies
from registry import register


@register("position/transformer_xl")
class TransformerXL(AttentionPosition):
    """Adds ``(u . k + (q + v) . W r(d)) / sqrt(K)`` with the sinusoids r(d) of the distance d (Dai et al., 3.3).

    The distance term is computed without a table of distances: sin and cos of ``i - j`` are sums of products of
    those of i and of j, so that turned queries times the waves of the keys are all there is to do.

    Args:
        base: The slowest wave turns by nearly 1 / ``base`` radians a token.
        waves: Sines and cosines that describe a distance; the work for a pair is in proportion.
            None: ``head_dim``, which doubles the work of the scores. (The authors take n_heads * head_dim.)

    Raises:
        ValueError: ``waves`` is odd; ``base`` is not above 1.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, base: float = 10_000.0, waves: int | None = None) -> None:
        super().__init__(n_heads, head_dim)
        waves = head_dim + head_dim % 2 if waves is None else waves
        if waves < 2 or waves % 2:
            raise ValueError(f"waves must be even, a sine and a cosine each, but got {waves}.")
        if base <= 1:
            raise ValueError(f"base must be above 1, but got {base}.")
        self.base = base
        self.u = nn.Parameter(torch.randn(n_heads, head_dim) * 0.02)
        self.v = nn.Parameter(torch.randn(n_heads, head_dim) * 0.02)
        self.to_r = nn.Parameter(torch.randn(n_heads, head_dim, waves) * waves**-0.5)
        declare(self, u="bias", v="bias", to_r="matrix")

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        H, K, _ = self.to_r.shape
        G = k.shape[2]
        u = self.u.unflatten(0, (G, H // G))
        content = torch.einsum("bsgk,grk->bgrs", k, u.to(k.dtype)).flatten(1, 2)  # (B, H, S)
        heard = torch.einsum("bthk,hkw->bhtw", q + self.v.to(q.dtype), self.to_r.to(q.dtype))
        turned = self._turn(heard, q_layout)  # (B, H, T, W)
        waves = self._waves(k_layout, q.dtype).transpose(1, 2)  # (B or 1, W, S)
        distance = (turned.flatten(1, 2) @ waves).unflatten(1, (H, -1))  # (B, H, T, S)
        return (content[:, :, None] + distance) * K**-0.5

    def _turn(self, heard: Tensor, layout: Layout) -> Tensor:
        """What to multiply the waves of j by, so that the sum is ``heard . r(i - j)``. (B, H, T, W)"""
        sin, cos = self._waves(layout, heard.dtype)[:, None].chunk(2, dim=-1)
        of_sin, of_cos = heard.chunk(2, dim=-1)
        return torch.cat([of_cos * sin - of_sin * cos, of_cos * cos + of_sin * sin], dim=-1)

    def _waves(self, layout: Layout, dtype: torch.dtype) -> Tensor:
        """Sines and then cosines of each token's place. (B or 1, T, W)"""

        def make() -> Tensor:
            position = layout.position[:1] if layout.dense else layout.position
            position = position[..., None].to(torch.promote_types(dtype, torch.float32))
            angle = position * frequencies(self.to_r.shape[-1], self.base, position)
            return torch.cat([angle.sin(), angle.cos()], dim=-1).to(dtype)

        return layout.once((self, "waves", dtype), make)

    def flops(self, queries: int, keys: int) -> int:
        H, K, W = self.to_r.shape
        return 2 * H * (keys * K + queries * K * W + queries * keys * W)
