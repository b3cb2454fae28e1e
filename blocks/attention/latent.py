"""Keys and values are unpacked from one small latent a token; only the latent is remembered.

Beside the latent stands a slice of key that all heads share and that carries the position. One token at a
time, the unpacking moves to the query's side, and the latents themselves are keys and values.

DeepSeek-AI 2024 (multi-head latent attention), https://arxiv.org/abs/2405.04434
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Backend, Reading, look
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, Normaliser, Score, declare
from blocks.functional import View
from registry import Factory, register


@register("attention/latent", normaliser="softmax")
class LatentAttention(Attention[Past]):
    """Attention whose keys and values come from a small latent, with a slice beside it for the position.

    A position rotates the slice only, and a bias that looks at queries and keys looks at theirs.

    Args:
        n_heads: Heads.
        head_dim: Width of a head's content and of its values. None: ``d_model / n_heads``.
        rope_dim: Width of the slice that carries the position. None: ``head_dim / 2``, rounded up to an even number.
        kv_rank: Width of the latent. None: 4 times ``head_dim``, at most ``d_model / 2``.
        q_rank: Width of a latent that queries come from. None: they come from the token.
        dropout: Probability of dropping an attention weight while training.
        normaliser: From scores to the weights of the values.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: ``d_model`` is no multiple of ``n_heads`` and no ``head_dim`` is given, a width is not positive,
            the position adds to the values, or the backend can not do what is asked.
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
        rope_dim: int | None = None,
        kv_rank: int | None = None,
        q_rank: int | None = None,
        dropout: float = 0.0,
        normaliser: Factory[Normaliser] = Normaliser,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        if n_heads < 1 or (head_dim is None and d_model % n_heads):
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        head_dim = d_model // n_heads if head_dim is None else head_dim
        rope_dim = -(-head_dim // 4) * 2 if rope_dim is None else rope_dim
        kv_rank = min(4 * head_dim, d_model // 2) if kv_rank is None else kv_rank
        for name, width in (("head_dim", head_dim), ("rope_dim", rope_dim), ("kv_rank", kv_rank), ("q_rank", q_rank)):
            if width is not None and width < 1:
                raise ValueError(f"{name} must be at least 1, but got {width}.")

        self.n_heads, self.head_dim, self.rope_dim = n_heads, head_dim, rope_dim
        wide = rope_dim + head_dim
        self.to_q_latent = None if q_rank is None else nn.Linear(d_model, q_rank, bias=False)
        self.norm_q = None if q_rank is None else nn.RMSNorm(q_rank, eps=1e-6)
        self.to_q = nn.Linear(d_model if q_rank is None else q_rank, n_heads * wide, bias=False)
        self.to_latent = nn.Linear(d_model, kv_rank, bias=False)
        self.norm = nn.RMSNorm(kv_rank, eps=1e-6)
        self.to_k_slice = nn.Linear(d_model, rope_dim, bias=False)
        self.to_k = nn.Linear(kv_rank, n_heads * head_dim, bias=False)
        self.to_v = declare(nn.Linear(kv_rank, n_heads * head_dim, bias=False), weight="value")
        self.reading = Reading(
            mask,
            position,
            n_heads,
            rope_dim,
            score=lambda heads, _: Score(heads, wide),
            normaliser=normaliser,
            dropout=dropout,
            backend=backend,
            refused={"value_bias": f"for {type(self).__name__}, whose values are not as wide as the slice it acts on"},
        )
        self.to_out = declare(nn.Linear(n_heads * head_dim, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self._queries(x, layout)  # (B, T, H, R + K)
        (latent, turned), view, state = look(self._latents, x, layout, self.mask, state, memory)
        absorb = state is not None and x.shape[1] == 1
        read = self._read_latents if absorb else self._read_unpacked
        return self.to_out(read(q, latent, turned, view).flatten(2)), state

    def _queries(self, x: Tensor, layout: Layout) -> Tensor:
        if self.to_q_latent is not None and self.norm_q is not None:
            x = self.norm_q(self.to_q_latent(x))
        turned, content = self.to_q(x).unflatten(-1, (self.n_heads, -1)).tensor_split((self.rope_dim,), dim=-1)
        return torch.cat([self.reading.queries(turned, layout), content], dim=-1)

    def _latents(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """What is remembered of a token. (B, S, C), (B, S, 1, R)"""
        return self.norm(self.to_latent(x)), self.reading.keys(self.to_k_slice(x)[:, :, None], layout)

    def _read_unpacked(self, q: Tensor, latent: Tensor, turned: Tensor, view: View) -> Tensor:
        k, v = (to(latent).unflatten(-1, (self.n_heads, -1)) for to in (self.to_k, self.to_v))
        k = torch.cat([turned.expand(-1, -1, self.n_heads, -1), k], dim=-1)  # (B, S, H, R + K)
        return self.reading(q, k, v, view)

    def _read_latents(self, q: Tensor, latent: Tensor, turned: Tensor, view: View) -> Tensor:
        """The same without unpacking: ``q . (W c) = (W' q) . c``, and the mean of ``W c`` is W times the mean."""
        unpack_k = self.to_k.weight.unflatten(0, (self.n_heads, -1))  # (H, K, C)
        unpack_v = self.to_v.weight.unflatten(0, (self.n_heads, -1))
        content = torch.einsum("bthk,hkc->bthc", q[..., self.rope_dim :], unpack_k)
        q = torch.cat([q[..., : self.rope_dim], content], dim=-1)  # (B, 1, H, R + C)
        k = torch.cat([turned, latent[:, :, None]], dim=-1)  # (B, S, 1, R + C)
        y = self.reading(q, k, latent[:, :, None], view)  # (B, 1, H, C)
        return torch.einsum("bthc,hkc->bthk", y, unpack_v)

    def empty_state(self, rows: int, capacity: int) -> Past:
        weight = self.to_latent.weight
        return empty_past(rows, capacity, self.mask, weight, (weight.shape[0],), (1, self.rope_dim))

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return self.reading.lowering()

    def cost(self, length: int, memory: int | None = None) -> Cost:
        weights = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))
        keys = sum(m.weight.numel() for m in (self.to_latent, self.to_k_slice, self.to_k, self.to_v))
        wide = self.rope_dim + self.head_dim
        flops = 2 * (length * (weights - keys) + (length if memory is None else memory) * keys)
        flops += self.reading.flops(length, wide, self.head_dim, memory)
        state = past_bytes(self, length, memory)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=self.reading.steps(length, memory))
