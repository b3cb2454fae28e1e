"""Sinusoidal position: add to each token waves of many lengths, read off at its place.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

import torch
from torch import Tensor

from blocks.contracts import EmbeddingPosition, Layout
from blocks.position.rotation import frequencies
from registry import register


@register("position/sinusoidal")
class Sinusoidal(EmbeddingPosition):
    """Adds sine and cosine of ``position * base^(-2i / D)`` to channels 2i and 2i + 1 (Vaswani et al., section 3.5).

    Args:
        base: The slowest wave turns by nearly 1 / ``base`` radians a token.
        scale: What the waves are multiplied by, to stand beside embeddings that start at 0.02 (init/gpt2). The paper's
            is 1, beside embeddings that start at 1 (embedding.scale=root).

    Raises:
        ValueError: ``d_model`` is odd, or ``base`` is not above 1.
    """

    def __init__(self, d_model: int, max_length: int, /, *, base: float = 10_000.0, scale: float = 0.03) -> None:
        super().__init__(d_model, max_length)
        if d_model % 2:
            raise ValueError(f"d_model must be even for pairs of sines and cosines, but got {d_model}.")
        if base <= 1:
            raise ValueError(f"base must be above 1, but got {base}.")
        self.base = base
        self.scale = scale

    def embed(self, x: Tensor, layout: Layout) -> Tensor:
        position = layout.position[:1] if layout.dense else layout.position
        position = position.to(torch.promote_types(x.dtype, torch.float32))
        angle = position[..., None] * frequencies(x.shape[-1], self.base, position)  # (B or 1, T, D / 2)
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (B or 1, T, D)
        return x + (self.scale * waves).to(x.dtype)
