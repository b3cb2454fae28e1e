"""Each token asks, every token answers with a key, and the askers read the values of the keys that fit.

One block, three names: as many key/value heads as query heads is multi-head attention, one is multi-query,
anything between is grouped-query.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
Shazeer 2019, https://arxiv.org/abs/1911.02150
Ainslie et al. 2023, https://arxiv.org/abs/2305.13245
Qiu et al. 2025 (the gate), https://arxiv.org/abs/2505.06708
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Backend, Reading, look
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Normaliser, Score, declare
from registry import Factory, register


@register("attention/mha", score="scaled_dot", normaliser="softmax")
@register("attention/mqa", n_kv_heads=1, score="scaled_dot", normaliser="softmax")
@register("attention/gqa", n_kv_heads=2, score="scaled_dot", normaliser="softmax")
class GroupedQueryAttention(Attention[Past]):
    """Attention whose query heads share key/value heads: one each (mha), a few (gqa), or one for all (mqa).

    Args:
        n_heads: Query heads.
        n_kv_heads: Key/value heads; divides ``n_heads``. None: as many as ``n_heads``.
        head_dim: Width of one head. None: ``d_model / n_heads``.
        bias: Whether the projections add a bias.
        dropout: Probability of dropping an attention weight while training.
        score: How alike a query and a key are.
        normaliser: From scores to the weights of the values.
        gate: A sigmoid of the token that scales what it read: none, one for each head, or one for each channel.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: The head counts do not divide as above, or the backend can not do what is asked.
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
        head_dim: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        score: Factory[Score] = Score,
        normaliser: Factory[Normaliser] = Normaliser,
        gate: Literal["none", "head", "channel"] = "none",
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if n_heads < 1 or n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"n_heads must be a multiple of n_kv_heads, but got {n_heads} and {n_kv_heads}.")
        if head_dim is None and d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        head_dim = d_model // n_heads if head_dim is None else head_dim
        if head_dim < 1:
            raise ValueError(f"head_dim must be at least 1, but got {head_dim}.")

        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.to_q = nn.Linear(d_model, n_heads * head_dim, bias=bias)
        self.to_k = nn.Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.to_v = declare(nn.Linear(d_model, n_kv_heads * head_dim, bias=bias), weight="value")
        self.reading = Reading(
            mask, position, n_heads, head_dim, score=score, normaliser=normaliser, dropout=dropout, backend=backend
        )
        gates = {"none": 0, "head": n_heads, "channel": n_heads * head_dim}[gate]
        self.to_gate = nn.Linear(d_model, gates, bias=bias) if gates else None
        self.to_out = declare(nn.Linear(n_heads * head_dim, d_model, bias=bias), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self.reading.queries(self._heads(self.to_q(x)), layout)  # (B, T, H, K)
        (k, v), view, state = look(self._keys_values, x, layout, self.mask, state, memory)
        y = self.reading(q, k, v, view)  # (B, T, H, K)
        if self.to_gate is not None:
            y = y * self.to_gate(x).unflatten(-1, (self.n_heads, -1)).sigmoid()
        return self.to_out(y.flatten(2)), state

    def empty_state(self, rows: int, capacity: int) -> Past:
        shape = (self.n_kv_heads, self.head_dim)
        return empty_past(rows, capacity, self.mask, self.to_k.weight, shape, shape)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return self.reading.lowering()

    def cost(self, length: int, memory: int | None = None) -> Cost:
        queries = sum(to.weight.numel() for to in (self.to_q, self.to_gate, self.to_out) if to is not None)
        keys = self.to_k.weight.numel() + self.to_v.weight.numel()
        flops = 2 * (length * queries + (length if memory is None else memory) * keys)
        flops += self.reading.flops(length, self.head_dim, self.head_dim, memory)
        state = past_bytes(self, length, memory)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=self.reading.steps(length, memory))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))

    def _keys_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        k = self.reading.keys(self._heads(self.to_k(x)), layout)  # (B, S, G, K)
        return k, self._heads(self.to_v(x))
