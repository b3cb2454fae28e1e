"""Rotary position: turn each pair of channels by an angle that grows with position.

The product of a turned query and a turned key depends on their distance only. To read further than a model was
trained, its frequencies are lowered: all alike (linear), the slow ones most (NTK-aware), or only those that never
completed a turn in training (YaRN, Llama 3).

Su et al. 2021, https://arxiv.org/abs/2104.09864
Chen et al. 2023 (linear), https://arxiv.org/abs/2306.15595
Peng et al. 2023 (NTK-aware, YaRN), https://arxiv.org/abs/2309.00071
Grattafiori et al. 2024 (Llama 3), https://arxiv.org/abs/2407.21783
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from blocks.contracts import AttentionPosition, Layout
from blocks.position.rotation import Pairing, frequencies, tables, turn
from registry import register


@register("position/rope")
class Rope(AttentionPosition):
    """Turns queries and keys, pair i of C channels by ``position * base^(-2i / C)`` radians (Su et al., section 3.2.2).

    Args:
        base: The slowest pair turns by nearly 1 / ``base`` radians a token.
        fraction: Share of each head's channels that turn, from the first; the rest ignore position.
        pairing: Which channels turn together: neighbours (interleaved), or i and i + C / 2 (half, as Llama's weights).
        scaling: How frequencies are lowered to read further than in training.
        factor: How many times further, above 1; without a scaling 1, as far as in training.
        original_length: Tokens a row in training; what yarn and llama3 count turns over.
        slow_turns: Pairs with fewer turns than this over ``original_length`` are slowed by the full ``factor``.
        fast_turns: Pairs with more turns than this keep their frequency. None: 32 for yarn, 4 for llama3.

    Raises:
        ValueError: The turning channels are odd in number or none; ``factor`` is given without a scaling, or is not
            above 1 with one; ``original_length`` is missing where turns are counted, or it or the turns are given
            where they are not.
    """

    def __init__(
        self,
        n_heads: int,
        head_dim: int,
        /,
        *,
        base: float = 10_000.0,
        fraction: float = 1.0,
        pairing: Pairing = "interleaved",
        scaling: Literal["none", "linear", "ntk", "yarn", "llama3"] = "none",
        factor: float = 1.0,
        original_length: int | None = None,
        slow_turns: float = 1.0,
        fast_turns: float | None = None,
    ) -> None:
        super().__init__(n_heads, head_dim)
        width = int(head_dim * fraction)
        if width < 2 or width % 2 or width > head_dim:
            raise ValueError(
                f"the turning channels must be an even number from 2 to head_dim, but got {width} of {head_dim}."
            )
        if base <= 1:
            raise ValueError(f"base must be above 1, but got {base}.")
        if (factor != 1) if scaling == "none" else (factor <= 1):
            must = "1 without a scaling and above 1 with one"
            raise ValueError(f"factor must be {must}, but got {factor} with scaling {scaling!r}.")
        if (original_length is not None) != (scaling in ("yarn", "llama3")):
            raise ValueError(
                "original_length must be given for yarn and llama3, and for nothing else, "
                f"but got {original_length} with scaling {scaling!r}."
            )
        if scaling not in ("yarn", "llama3") and (slow_turns != 1.0 or fast_turns is not None):
            raise ValueError(
                "slow_turns and fast_turns must be left as they are where no turns are counted (by yarn and llama3), "
                f"but got {slow_turns} and {fast_turns} with scaling {scaling!r}."
            )
        fast_turns = fast_turns or (4.0 if scaling == "llama3" else 32.0)
        if not 0 < slow_turns < fast_turns:
            raise ValueError(f"slow_turns must be above 0 and below fast_turns, but got {slow_turns} and {fast_turns}.")
        self.base = base
        self.width = width
        self.pairing: Pairing = pairing
        self.scaling = scaling
        self.factor = factor
        self.original_length = original_length or 0
        self.slow_turns = slow_turns
        self.fast_turns = fast_turns
        self.stretch = 0.1 * math.log(factor) + 1 if scaling == "yarn" else 1.0

    def rotate(self, x: Tensor, layout: Layout, role: Literal["query", "key"]) -> Tensor:
        prepared = layout.once((self, "rotate", x.dtype), lambda: self._tables(x.dtype, layout))
        return turn(x, prepared, self.pairing, self.width)

    @property
    def planes(self) -> tuple[Pairing, int]:
        """The pairs that turn; rotations in the same pairs add up."""
        return self.pairing, self.width

    def _tables(self, dtype: torch.dtype, layout: Layout) -> tuple[Tensor, ...]:
        # Made anew in each forward, at float32 or better: model.to(bfloat16) would round a stored table.
        position = layout.position[:1] if layout.dense else layout.position
        position = position.to(torch.promote_types(dtype, torch.float32))
        angle = position[:, :, None, None] * self.frequencies(position)  # (B or 1, T, 1, C / 2)
        return tables(angle, self.pairing, dtype, self.stretch)

    def frequencies(self, like: Tensor) -> Tensor:
        """Radians per token of each pair, scaled. (C / 2,), with the dtype and device of ``like``"""
        C = self.width
        if self.scaling == "ntk":  # the slowest pair is slowed by exactly the factor, the fastest not at all
            return frequencies(C, self.base * self.factor ** (C / max(C - 2, 1)), like)
        plain = frequencies(C, self.base, like)
        if self.scaling == "linear":
            return plain / self.factor
        if self.scaling == "none":
            return plain
        keep = self._yarn_keep(plain) if self.scaling == "yarn" else self._llama3_keep(plain)
        return plain * keep + plain / self.factor * (1 - keep)

    def _llama3_keep(self, plain: Tensor) -> Tensor:
        """How much of its frequency each pair keeps: from slow to fast, linear in its turns."""
        turns = self.original_length * plain / (2 * math.pi)
        return ((turns - self.slow_turns) / (self.fast_turns - self.slow_turns)).clamp(0, 1)

    def _yarn_keep(self, plain: Tensor) -> Tensor:
        """The same, but linear in the pair's index, between whole indices as in the authors' code."""

        def index(turns: float) -> float:  # of the pair that turns so often over original_length
            reach = self.original_length / (2 * math.pi * turns)
            return self.width * math.log(reach) / (2 * math.log(self.base))

        fast = max(math.floor(index(self.fast_turns)), 0)
        slow = min(math.ceil(index(self.slow_turns)), self.width - 1)
        pair = torch.arange(len(plain), device=plain.device, dtype=plain.dtype)
        return 1 - ((pair - fast) / max(slow - fast, 1e-3)).clamp(0, 1)
