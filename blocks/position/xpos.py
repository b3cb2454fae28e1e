"""xPos: rotary position whose products also fade with distance, fast pairs fastest.

Sun et al. 2022, https://arxiv.org/abs/2212.10554
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from blocks.contracts import AttentionPosition, Layout, Mask
from blocks.position.rotation import Pairing, frequencies, tables, turn
from registry import register

GAMMA = 0.4  # the authors' choice of how strongly even the fastest pair fades


@register("position/xpos")
class XPos(AttentionPosition):
    """Turns like rope and stretches queries by ``z^(position / scale_base)``, keys by its inverse.

    For pair i of K / 2, ``z = (2i / K + 0.4) / 1.4`` (Sun et al., Algorithm 1). A key's stretch grows with its
    position: in float32 and bfloat16 it stays finite up to about 70 times ``scale_base``.

    Args:
        base: The slowest pair turns by nearly 1 / ``base`` radians a token.
        scale_base: Tokens over which the fastest pair fades to 0.29, the slowest hardly at all.
        pairing: Which channels turn together: neighbours (interleaved), or i and i + K / 2 (half).

    Raises:
        ValueError: ``head_dim`` is odd; ``base`` is not above 1; ``scale_base`` is not positive; a mask lets
            queries see later keys.
    """

    def __init__(
        self,
        n_heads: int,
        head_dim: int,
        /,
        *,
        base: float = 10_000.0,
        scale_base: float = 512.0,
        pairing: Pairing = "interleaved",
    ) -> None:
        super().__init__(n_heads, head_dim)
        if head_dim % 2:
            raise ValueError(f"head_dim must be even for pairs that turn, but got {head_dim}.")
        if base <= 1:
            raise ValueError(f"base must be above 1, but got {base}.")
        if scale_base <= 0:
            raise ValueError(f"scale_base must be positive, but got {scale_base}.")
        self.width = head_dim
        self.base = base
        self.scale_base = scale_base
        self.pairing: Pairing = pairing

    def admit(self, mask: Mask) -> None:
        if not mask.causal:
            raise ValueError(
                f"mask must be causal for {type(self).__name__}, in whose products keys ahead grow as those behind "
                f"fade, but got {type(mask).__name__}. rope works both ways."
            )

    def rotate(self, x: Tensor, layout: Layout, role: Literal["query", "key"]) -> Tensor:
        prepared = layout.once((self, "rotate", role, x.dtype), lambda: self._tables(x.dtype, layout, role))
        return turn(x, prepared, self.pairing, self.width)

    @property
    def planes(self) -> tuple[Pairing, int]:
        """The pairs that turn; rotations in the same pairs add up."""
        return self.pairing, self.width

    def _tables(self, dtype: torch.dtype, layout: Layout, role: Literal["query", "key"]) -> tuple[Tensor, ...]:
        position = layout.position[:1] if layout.dense else layout.position
        position = position.to(torch.promote_types(dtype, torch.float32))[:, :, None, None]
        angle = position * frequencies(self.width, self.base, position)  # (B or 1, T, 1, K / 2)
        share = torch.arange(0, self.width, 2, device=position.device, dtype=position.dtype) / self.width
        z = (share + GAMMA) / (1 + GAMMA)
        stretch = z ** (position / (self.scale_base if role == "query" else -self.scale_base))
        return tables(angle, self.pairing, dtype, stretch)
