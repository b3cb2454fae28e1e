"""Each head subtracts one attention from another, so that what both give to noise cancels.

Ye et al. 2024, https://arxiv.org/abs/2410.05258
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Backend, Reading, look
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Normaliser, Score, declare
from registry import Factory, register


@register("attention/differential", score="scaled_dot", normaliser="softmax")
class DifferentialAttention(Attention[Past]):
    """The difference of two softmax attentions to the same values, the second times a learned lambda.

    Args:
        n_heads: Heads; each has two queries and two keys, half as wide as its value.
        n_kv_heads: Key/value heads; divides ``n_heads``. None: as many as ``n_heads``.
        start: Lambda at the start. (The authors raise it with depth, from 0.2 to 0.8.)
        dropout: Probability of dropping an attention weight while training.
        score: How alike a query and a key are.
        normaliser: From scores to the weights of the values.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: ``d_model`` is no multiple of ``2 n_heads`` or ``n_heads`` of ``n_kv_heads``, ``start`` is not
            between 0 and 1, the position adds to the values, or the backend can not do what is asked.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None = None,
        /,
        *,
        n_heads: int = 8,
        n_kv_heads: int | None = None,
        start: float = 0.8,
        dropout: float = 0.0,
        score: Factory[Score] = Score,
        normaliser: Factory[Normaliser] = Normaliser,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"n_heads must be a multiple of n_kv_heads, but got {n_heads} and {n_kv_heads}.")
        if d_model % (2 * n_heads):
            raise ValueError(f"d_model must be a multiple of 2 n_heads, but got {d_model} and {n_heads}.")
        if not 0.0 < start < 1.0:
            raise ValueError(f"start must be between 0 and 1, but got {start}.")

        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.head_dim = d_model // (2 * n_heads)
        self.start = start
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, 2 * n_kv_heads * self.head_dim, bias=False)
        self.to_v = declare(nn.Linear(d_model, 2 * n_kv_heads * self.head_dim, bias=False), weight="value")
        self.reading = Reading(
            mask,
            position,
            2 * n_heads,
            self.head_dim,
            score=score,
            normaliser=normaliser,
            dropout=dropout,
            backend=backend,
            refused={"value_bias": f"for {type(self).__name__}, whose values are twice as wide as its keys"},
        )
        self.lambdas = nn.Parameter(torch.randn(2, 2, self.head_dim) * 0.1)  # of either attention: query, key
        declare(self, lambdas="dynamics")
        self.norm = nn.RMSNorm(2 * self.head_dim, eps=1e-5)
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self.reading.queries(self.to_q(x).unflatten(-1, (2 * self.n_heads, -1)), layout)  # (B, T, 2 H, K)
        (k, v), view, state = look(self._keys_values, x, layout, self.mask, state, memory)
        both = self.reading(q, k, v.repeat_interleave(2, dim=2), view)  # (B, T, 2 H, 2 K)
        # Consecutive query heads share a key head, so the first attentions of a group stand together.
        one, other = both.unflatten(2, (self.n_kv_heads, 2, -1)).unbind(3)  # (B, T, G, H / G, 2 K)
        y = self.norm(one - self.balance().to(one.dtype) * other) * (1 - self.start)
        return self.to_out(y.flatten(2)), state

    def balance(self) -> Tensor:
        """Lambda, how much of the second attention is subtracted; a scalar."""
        one, other = self.lambdas.prod(dim=1).sum(dim=-1).exp()
        return one - other + self.start

    def empty_state(self, rows: int, capacity: int) -> Past:
        keys, values = (2 * self.n_kv_heads, self.head_dim), (self.n_kv_heads, 2 * self.head_dim)
        return empty_past(rows, capacity, self.mask, self.to_k.weight, keys, values)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return self.reading.lowering()

    def cost(self, length: int, memory: int | None = None) -> Cost:
        queries = self.to_q.weight.numel() + self.to_out.weight.numel()
        keys = self.to_k.weight.numel() + self.to_v.weight.numel()
        flops = 2 * (length * queries + (length if memory is None else memory) * keys)
        flops += self.reading.flops(length, self.head_dim, 2 * self.head_dim, memory)
        state = past_bytes(self, length, memory)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=self.reading.steps(length, memory))

    def _keys_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        k = self.to_k(x).unflatten(-1, (2 * self.n_kv_heads, -1))  # (B, S, 2 G, K)
        return self.reading.keys(k, layout), self.to_v(x).unflatten(-1, (self.n_kv_heads, -1))
