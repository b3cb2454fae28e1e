"""Each token reads the tokens that a learned matrix says fit it; what it reads are the tokens themselves.

Luong et al. 2015 (the general score), https://arxiv.org/abs/1508.04025
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Backend, Reading, look
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Normaliser, Score
from registry import Factory, register


@register("attention/bilinear", score="dot", normaliser="softmax")
class BilinearAttention(Attention[Past]):
    """Attention by the score ``x_t W x_s``: only queries are projected; keys and values are the tokens.

    Args:
        n_heads: Parts into which a token is cut, each of which reads by itself.
        dropout: Probability of dropping an attention weight while training.
        score: How alike a query and a token are.
        normaliser: From scores to the weights of the tokens.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: ``d_model`` is no multiple of ``n_heads``, or the backend can not do what is asked.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None = None,
        /,
        *,
        n_heads: int = 1,
        dropout: float = 0.0,
        score: Factory[Score] = Score,
        normaliser: Factory[Normaliser] = Normaliser,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.reading = Reading(
            mask, position, n_heads, self.head_dim, score=score, normaliser=normaliser, dropout=dropout, backend=backend
        )

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self.reading.queries(self._heads(self.to_q(x)), layout)  # (B, T, H, K)
        (k, v), view, state = look(self._keys_values, x, layout, self.mask, state, memory)
        return self.reading(q, k, v, view).flatten(2), state

    def empty_state(self, rows: int, capacity: int) -> Past:
        shape = (self.n_heads, self.head_dim)
        return empty_past(rows, capacity, self.mask, self.to_q.weight, shape, shape)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return self.reading.lowering()

    def cost(self, length: int, memory: int | None = None) -> Cost:
        flops = 2 * length * self.to_q.weight.numel() + self.reading.flops(length, self.head_dim, self.head_dim, memory)
        state = past_bytes(self, length, memory)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=self.reading.steps(length, memory))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.head_dim))

    def _keys_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        return self.reading.keys(self._heads(x), layout), self._heads(x)
