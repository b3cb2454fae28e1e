"""Softmax attention rebuilt from a few landmarks: the means of the segments that a document is cut into.

Queries attend to the landmarks only; what the landmarks say is chosen such that the product of three small
softmaxes stands for the large one.

Xiong et al. 2021, https://arxiv.org/abs/2102.03902
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


@register("attention/nystrom")
class NystromAttention(Attention[Past]):
    """Attention to ``landmarks`` segments of each document, with the values ``pinv(A) B V`` (Xiong et al., section 3).

    A are the landmarks' own weights and B those they give to all tokens. The landmarks, queries too, are those of
    what is read. A document of at most ``landmarks`` tokens is read by plain softmax attention, as by the authors. It
    reads whole documents, so it is for encoders and cross-attention.

    Args:
        n_heads: Heads.
        landmarks: Segments that a document is cut into.
        iterations: Steps of the iteration that inverts A.
        dropout: Probability of dropping a weight given to a landmark while training.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: The mask is not full, the position does anything inside attention, ``d_model`` is no multiple of
            ``n_heads``, or ``landmarks`` or ``iterations`` is less than 1.
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
        landmarks: int = 32,
        iterations: int = 6,
        dropout: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        refuse_all_but_full(mask, type(self).__name__)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if landmarks < 1 or iterations < 1:
            raise ValueError(f"landmarks and iterations must be at least 1, but got {landmarks} and {iterations}.")
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.landmarks, self.iterations = landmarks, iterations
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        why = f"for {type(self).__name__}, whose keys are means over many places"
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
            (k, v), where = self._summary(*((x, layout, q) if memory is None else (*memory, None)))
            state = None if state is None else state.hold((k, v), where)
        y = self.reading(q, k, v.to(q.dtype), see(self.mask, layout, where))  # (B, T, H, K)
        return self.to_out(y.flatten(2)), state

    def _summary(self, x: Tensor, layout: Layout, q: Tensor | None) -> tuple[tuple[Tensor, Tensor], Layout]:
        """The landmarks' keys and values. (B, n M, H, K) for n documents, and whose they are"""
        M = self.landmarks
        documents = Documents.of(layout)
        member = documents.member  # (B, n, S)
        length = member.sum(2, keepdim=True)
        segment = documents.rank[:, None] * M // length.clamp(min=1)  # (B, n, S)
        inside = (segment[:, :, None] == torch.arange(M, device=x.device)[:, None]) & member[:, :, None]
        exists = inside.any(3)  # (B, n, M); a document shorter than that has fewer
        mean = inside.to(x.dtype) / inside.sum(3, keepdim=True).clamp(min=1).to(x.dtype)  # (B, n, M, S)

        q = self.to_q(x) if q is None else q.flatten(2)
        k, v = self.to_k(x), self.to_v(x)
        landmark_q, landmark_k = (self._heads(mean @ t[:, None]).transpose(2, 3) for t in (q, k))  # (B, n, H, M, K)
        landmark_q = landmark_q * self.head_dim**-0.5
        k, v = (self._heads(t).transpose(1, 2)[:, None] for t in (k, v))  # (B, 1, H, S, K)

        near = _softmax(landmark_q @ landmark_k.transpose(-1, -2), (exists[..., None] & exists[:, :, None])[:, :, None])
        far = _softmax(landmark_q @ k.transpose(-1, -2), (exists[..., None] & member[:, :, None])[:, :, None])
        inverse = self._inverse(near)
        # Where each token is a landmark of its own, the values are the tokens': nothing has to be inverted.
        few = (length <= M)[:, :, None, :, None]  # (B, n, 1, 1, 1)
        far = torch.where(few, mean[:, :, None].to(far.dtype), far)
        inverse = torch.where(few, torch.eye(M, dtype=inverse.dtype, device=inverse.device), inverse)
        values = inverse @ (far @ v).to(inverse.dtype)  # (B, n, H, M, K)

        kept = tuple(t.transpose(2, 3).flatten(1, 2).to(x.dtype) for t in (landmark_k, values))
        whole = layout.dense and x.shape[1] >= M
        return kept, documents.summaries(M, exists)._replace(dense=whole)  # type: ignore[return-value]

    def _inverse(self, a: Tensor) -> Tensor:
        """Moore-Penrose, by an iteration of third order (Razavi et al. 2014) in float32 at least. (..., M, M)"""
        a = a.to(torch.promote_types(a.dtype, torch.float32))
        one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        norms = a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1)
        z = a.transpose(-1, -2) / norms.clamp(min=torch.finfo(a.dtype).tiny)[..., None, None]
        for _ in range(self.iterations):
            az = a @ z
            z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
        return z

    def empty_state(self, rows: int, capacity: int) -> Past:
        shape = (self.n_heads, self.head_dim)
        return empty_past(rows, capacity, self.mask, self.to_k.weight, shape, shape)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return f"native: summaries ({self.reading.kernel})"

    def cost(self, length: int, memory: int | None = None) -> Cost:
        D, M = self.d_model, self.landmarks
        asks = D * D + 2 * M * D  # numbers multiplied for each token that asks: to_out, and the reading
        summary = 3 * D * D + 2 * M * D + 2 * M * D  # and for each that is read: projections, means, far
        invert = 4 * self.iterations * self.n_heads * M**3 + 2 * M * M * D
        read = length if memory is None else memory
        more = 0 if memory is None else length * D * D  # a memory's queries are not the row's own
        flops = 2 * (length * asks + read * summary + more + invert)
        state = past_bytes(self, length, memory, slots=M)
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=4 + 4 * self.iterations)

    def path(self, distance: int, length: int) -> Path:
        return Path(1, 3)  # into what the landmarks read, through the inverse, and out

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.head_dim))


def _softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Over what is allowed, and zero where nothing is."""
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return hidden.softmax(dim=-1).masked_fill(~allowed, 0.0)
