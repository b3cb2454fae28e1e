"""Heads talk to each other: scores are mixed across heads before they become weights, and weights after.

Shazeer et al. 2020, https://arxiv.org/abs/2003.02436
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Reading, look
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Normaliser, Score, declare
from blocks.functional import View, allowed_by, attend, in_strips, pairs
from registry import Factory, register


@register("attention/talking_heads", score="scaled_dot", normaliser="softmax")
class TalkingHeadsAttention(Attention[Past]):
    """Multi-head attention with a learned mixture of the heads' scores, and one of their weights.

    Both mixtures start near the identity, so that training starts at multi-head attention.

    Args:
        n_heads: Heads.
        head_dim: Width of one head. None: ``d_model / n_heads``.
        bias: Whether the projections add a bias.
        dropout: Probability of dropping an attention weight while training.
        score: How alike a query and a key are.
        normaliser: From scores to the weights of the values.

    Raises:
        ValueError: ``d_model`` is no multiple of ``n_heads`` and no ``head_dim`` is given.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None = None,
        /,
        *,
        n_heads: int = 8,
        head_dim: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        score: Factory[Score] = Score,
        normaliser: Factory[Normaliser] = Normaliser,
    ) -> None:
        super().__init__(d_model, mask, position)
        if n_heads < 1 or (head_dim is None and d_model % n_heads):
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        head_dim = d_model // n_heads if head_dim is None else head_dim
        if head_dim < 1:
            raise ValueError(f"head_dim must be at least 1, but got {head_dim}.")
        self.n_heads, self.head_dim = n_heads, head_dim
        self.to_q = nn.Linear(d_model, n_heads * head_dim, bias=bias)
        self.to_k = nn.Linear(d_model, n_heads * head_dim, bias=bias)
        self.to_v = declare(nn.Linear(d_model, n_heads * head_dim, bias=bias), weight="value")
        self.reading = Reading(
            mask, position, n_heads, head_dim, score=score, normaliser=normaliser, dropout=dropout, backend="eager"
        )
        self.mix_scores = nn.Parameter(torch.eye(n_heads) + 0.02 * torch.randn(n_heads, n_heads))
        self.mix_weights = nn.Parameter(torch.eye(n_heads) + 0.02 * torch.randn(n_heads, n_heads))
        declare(self, mix_scores="dynamics", mix_weights="dynamics")  # around an identity
        self.to_out = declare(nn.Linear(n_heads * head_dim, d_model, bias=bias), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self.reading.queries(self._heads(self.to_q(x)), layout)  # (B, T, H, K)
        (k, v), view, state = look(self._keys_values, x, layout, self.mask, state, memory)
        talk = in_strips(self._talk, per_pair=self.n_heads)
        return self.to_out(attend(q.to(v.dtype), k.to(v.dtype), v, view, talk).flatten(2)), state

    def _talk(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        scores = _mix(self.reading.scores(q, k, view), self.mix_scores)  # (B, H, T, S)
        weights = _mix(self.reading.normaliser(scores, allowed_by(view)), self.mix_weights)
        return self.reading.read(weights, v, view)

    def empty_state(self, rows: int, capacity: int) -> Past:
        shape = (self.n_heads, self.head_dim)
        return empty_past(rows, capacity, self.mask, self.to_k.weight, shape, shape)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return self.reading.lowering()

    def cost(self, length: int, memory: int | None = None) -> Cost:
        queries = self.to_q.weight.numel() + self.to_out.weight.numel()
        keys = self.to_k.weight.numel() + self.to_v.weight.numel()
        talk = 2 * 2 * pairs(self.mask, length, memory) * self.n_heads**2
        flops = 2 * (length * queries + (length if memory is None else memory) * keys) + talk
        flops += self.reading.flops(length, self.head_dim, self.head_dim, memory)
        state = past_bytes(self, length, memory)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=self.reading.steps(length, memory))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.head_dim))

    def _keys_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        return self.reading.keys(self._heads(self.to_k(x)), layout), self._heads(self.to_v(x))


def _mix(x: Tensor, weights: Tensor) -> Tensor:
    """Each head becomes a sum of all. (B, H, T, S), (H, H) -> (B, H, T, S)"""
    return torch.einsum("bhts,hi->bits", x, weights.to(x.dtype))
