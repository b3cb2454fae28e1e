"""Keys and values of a document are squeezed into a few, whatever its length, by learned sums over places.

Wang et al. 2020, https://arxiv.org/abs/2006.04768
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from blocks.attention._documents import Documents, refuse_all_but_full
from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Backend, Reading
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Path, declare
from blocks.functional import see
from registry import register


@register("attention/linformer")
class LinformerAttention(Attention[Past]):
    """Attention to ``rank`` sums of keys and of values, with weights learned for each place in a document.

    The sums are shared by the heads, and by keys and values. It reads whole documents, so it is for encoders
    and cross-attention.

    Args:
        n_heads: Heads.
        rank: Keys and values that are left of a document.
        length: Tokens of the longest document.
        dropout: Probability of dropping an attention weight while training.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: The mask is not full, the position does anything inside attention, ``d_model`` is no multiple of
            ``n_heads``, or ``rank`` or ``length`` is less than 1. At a call: the row is longer than ``length``.
    """

    prefers: ClassVar[dict[str, str]] = {"position": "none"}

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None = None,
        /,
        *,
        n_heads: int = 8,
        rank: int = 32,
        length: int = 2048,
        dropout: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        refuse_all_but_full(mask, type(self).__name__)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if rank < 1 or length < 1:
            raise ValueError(f"rank and length must be at least 1, but got {rank} and {length}.")
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.rank, self.length = rank, length
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        self.squeeze = nn.Parameter(torch.randn(length, rank) * rank**-0.5)
        declare(self, squeeze="matrix")
        why = f"for {type(self).__name__}, whose keys are sums over many places"
        self.reading = Reading(
            mask,
            position,
            n_heads,
            self.head_dim,
            dropout=dropout,
            backend=backend,
            refused=dict.fromkeys(("rotate", "bias", "value_bias"), why),
        )
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self._heads(self.to_q(x))  # (B, T, H, K)
        if state is not None and not state.unread:
            (k, v), where = state.kept, state.layout
        else:
            (k, v), where = self._summary(*((x, layout) if memory is None else memory))
            state = None if state is None else state.hold((k, v), where)
        y = self.reading(q, k, v.to(q.dtype), see(self.mask, layout, where))  # (B, T, H, K)
        return self.to_out(y.flatten(2)), state

    def _summary(self, x: Tensor, layout: Layout) -> tuple[tuple[Tensor, Tensor], Layout]:
        """Keys and values that are left. (B, n R, H, K) for n documents, and whose they are"""
        if x.shape[1] > self.length:
            raise ValueError(
                f"length must be at least the {x.shape[1]} tokens of a row for {type(self).__name__}, "
                f"but got {self.length}."
            )
        documents = Documents.of(layout)
        weights = self.squeeze[documents.rank].transpose(1, 2)  # (B, R, S)
        weights = (weights[:, None] * documents.member[:, :, None]).flatten(1, 2)  # (B, n R, S)
        k, v = (self._heads(weights.to(x.dtype) @ to(x)) for to in (self.to_k, self.to_v))
        return (k, v), documents.summaries(self.rank)._replace(dense=layout.dense)

    def empty_state(self, rows: int, capacity: int) -> Past:
        shape = (self.n_heads, self.head_dim)
        return empty_past(rows, capacity, self.mask, self.to_k.weight, shape, shape)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return f"native: summaries ({self.reading.kernel})"

    def cost(self, length: int, memory: int | None = None) -> Cost:
        D, read = self.d_model, length if memory is None else memory
        flops = 2 * (length + read) * (2 * D * D + 2 * self.rank * D)  # either is projected twice, and multiplied twice
        state = past_bytes(self, length, memory, slots=self.rank)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=2)

    def path(self, distance: int, length: int) -> Path:
        return Path(1, 2)  # into the sums, and out of them

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.head_dim))
