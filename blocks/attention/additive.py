"""A small network looks at a query and a key together and says how well they fit; the tokens themselves are read.

Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import host, look, probability
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Normaliser, declare
from blocks.functional import View, allowed_by, attend, bias_flops, in_strips, lowering, pairs, weighted
from registry import Factory, register


@register("attention/additive", normaliser="softmax")
class AdditiveAttention(Attention[Past]):
    """Attention by the score ``w . tanh(W x_t + U x_s)``; the values are the tokens.

    It makes ``width`` numbers for every pair of tokens, where a dot product makes one; long rows are read strip by
    strip, so that these never stand in memory all at once.

    Args:
        width: Hidden width of the network that scores a pair.
        dropout: Probability of dropping an attention weight while training.
        normaliser: From scores to the weights of the tokens.

    Raises:
        ValueError: ``width`` is less than 1, ``dropout`` no share, or the position rotates or adds to the values.
    """

    prefers: ClassVar[dict[str, str]] = {"position": "alibi"}

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None = None,
        /,
        *,
        width: int = 32,
        dropout: float = 0.0,
        normaliser: Factory[Normaliser] = Normaliser,
    ) -> None:
        super().__init__(d_model, mask, position)
        if width < 1:
            raise ValueError(f"width must be at least 1, but got {width}.")
        self.width = width
        self.dropout = probability(dropout)
        self.to_q = nn.Linear(d_model, width, bias=False)
        self.to_k = nn.Linear(d_model, width, bias=False)
        self.fit = nn.Parameter(torch.randn(width, 1) * width**-0.5)
        declare(self, fit="matrix")
        self.normaliser = normaliser(1)
        self.position = host(
            position,
            1,
            width,
            mask,
            refused={
                "rotate": f"for {type(self).__name__}, whose scores are no products of queries and keys",
                "value_bias": f"for {type(self).__name__}, whose values are whole tokens",
            },
        )

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self.to_q(x)[:, :, None]  # (B, T, 1, W)
        (k, v), view, state = look(self._keys_values, x, layout, self.mask, state, memory)
        read = in_strips(self._read, per_pair=self.width)
        return attend(q, k.to(q.dtype), v.to(q.dtype), view, read).flatten(2), state

    def _read(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        both = torch.tanh(q + k[:, None, :, 0])  # (B, T, S, W)
        scores = (both @ self.fit.to(q.dtype)).permute(0, 3, 1, 2)  # (B, 1, T, S)
        bias = self.position.bias(q, k, view.queries, view.keys)
        weights = self.normaliser(scores if bias is None else scores + bias, allowed_by(view))
        return weighted(F.dropout(weights.to(v.dtype), self.dropout, self.training), v)

    def empty_state(self, rows: int, capacity: int) -> Past:
        return empty_past(rows, capacity, self.mask, self.to_k.weight, (1, self.width), (1, self.d_model))

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return lowering(self.mask, "eager")

    def cost(self, length: int, memory: int | None = None) -> Cost:
        n, D, W = pairs(self.mask, length, memory), self.d_model, self.width
        flops = 2 * (length + (length if memory is None else memory)) * D * W + 2 * n * (W + D)
        flops += bias_flops(self.position, self.mask, length, memory)
        state = past_bytes(self, length, memory)
        steps = 1 + self.position.steps(length if memory is None else memory)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps)

    def _keys_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        return self.to_k(x)[:, :, None], x[:, :, None]
