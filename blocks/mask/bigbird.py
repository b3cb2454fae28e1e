"""A token sees its neighbours, the start of its document, and a few random places that never change.

Zaheer et al. 2020, https://arxiv.org/abs/2007.14062
"""

from __future__ import annotations

import torch
from torch import Tensor

from blocks.contracts import Layout, Mask
from blocks.functional import Pattern
from registry import register


@register("mask/bigbird")
class BigBird(Mask):
    """Blocks of ``size`` tokens see neighbouring blocks, the first blocks and random blocks.

    The random blocks are distinct, and none of them is near or first, as in the authors' plan; where fewer than
    ``n_random`` such blocks exist, all of them are seen. They are a function of the seed and the block's place, so they
    are the same in training and evaluation, on every device, at every length, and there is nothing to save but the
    seed. They lie behind the block; both ways, as many lie ahead, at most as far from it as the start is. (The authors
    draw from the whole row, whose length they know.)

    Args:
        size: Tokens in a block.
        n_near: Blocks seen back, the token's own included; both ways, as many ahead.
        n_global: First blocks of a document, which everybody sees and (both ways) which see everybody.
        n_random: Random blocks behind each block; both ways, as many ahead.
        seed: Another seed, other random blocks.

    Raises:
        ValueError: ``size`` or ``n_near`` is less than 1, or another count less than 0.
    """

    blocks: Pattern

    def __init__(
        self,
        causal: bool,
        /,
        *,
        size: int = 16,
        n_near: int = 2,
        n_global: int = 1,
        n_random: int = 2,
        seed: int = 0,
    ) -> None:
        for name, value, least in (("size", size, 1), ("n_near", n_near, 1), ("n_global", n_global, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, but got {value}.")
        if n_random < 0:
            raise ValueError(f"n_random must be at least 0, but got {n_random}.")
        super().__init__(causal)
        self.size, self.n_near, self.n_global, self.n_random, self.seed = size, n_near, n_global, n_random, seed
        self.blocks = Pattern(size, self._reads, wide=0 if causal else size * n_global)

    def sees(self, q: Layout, k: Layout) -> Tensor:
        own, other = q.position // self.size, k.position // self.size
        seen = ((own - other).abs() < self.n_near) | (other < self.n_global)
        if not self.causal:
            seen = seen | (own < self.n_global)
        for block in self._random(own):
            seen = seen | (block == other)
        return seen

    def _reads(self, n: int) -> Tensor:
        own = torch.arange(n)[:, None]
        ahead = 1 if self.causal else self.n_near
        near = own + torch.arange(1 - self.n_near, ahead)
        return torch.cat([near, torch.arange(self.n_global).expand(n, -1), *self._random(own)], dim=1)

    def _random(self, own: Tensor) -> list[Tensor]:
        """For each random block, which it is for blocks ``own`` (of any shape); ``own`` itself where there is none."""
        first = torch.full_like(own, self.n_global)
        drawn = self._distinct(own, first, own - self.n_near - first + 1, 0)
        if self.causal:
            return drawn
        nearest = torch.maximum(own + self.n_near, first)
        return drawn + self._distinct(own, nearest, 2 * own - nearest + 1, self.n_random)

    def _distinct(self, own: Tensor, first: Tensor, count: Tensor, salt: int) -> list[Tensor]:
        """``n_random`` different ones of the ``count`` blocks from ``first`` on, as far as there are any."""
        taken: list[Tensor] = []  # places below ``count`` that are drawn already, in ascending order
        blocks = []
        for j in range(self.n_random):
            place = self._hash(own, salt + j) % (count - j).clamp(min=1)  # among those that are left
            for earlier in taken:
                place = place + (place >= earlier)
            blocks.append(torch.where(count > j, first + place, own))
            if j + 1 < self.n_random:
                taken = list(torch.stack([*taken, place]).sort(dim=0).values)
        return blocks

    def _hash(self, own: Tensor, j: int) -> Tensor:
        """Noise in 31 bits, in integers: equal on every device."""
        x = (own + 1) * 7919 + j * 104_729 + self.seed * 1_299_709
        for _ in range(3):
            x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0x7FFFFFFF
        return x ^ (x >> 16)
