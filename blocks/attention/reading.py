"""How queries read keys: score, position, weights and the kernel, as one part of several mixers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.attention.past import Past
from blocks.contracts import AttentionPosition, Layout, Mask, Memory, Normaliser, Score
from blocks.functional import (
    Kernel,
    View,
    allowed_by,
    attend,
    bias_flops,
    flexed,
    fused,
    in_strips,
    lowering,
    pairs,
    products,
    see,
    weighted,
)
from registry import Factory, SameNumbers

Backend = Annotated[
    Literal["auto", "eager", "sdpa", "flex"], SameNumbers("it picks a kernel: the speed differs, the numbers do not")
]


class Reading(nn.Module):
    """Compares queries with keys and adds up values.

    ``backend`` may be changed after building; what only eager can do stays eager.
    """

    def __init__(
        self,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None,
        n_heads: int,
        head_dim: int,
        /,
        *,
        score: Factory[Score] = Score,
        normaliser: Factory[Normaliser] = Normaliser,
        dropout: float = 0.0,
        backend: Backend = "auto",
        refused: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.mask = mask
        self.n_heads, self.head_dim = n_heads, head_dim
        self.dropout = probability(dropout)
        self.score = score(n_heads, head_dim)
        self.normaliser = normaliser(n_heads)
        self.position = host(position, n_heads, head_dim, mask, refused)
        self.backend = backend
        self._check(backend)

    def _check(self, backend: Backend) -> None:
        reason = self._only_eager()
        if backend in ("sdpa", "flex") and reason:
            raise ValueError(f"backend must be auto or eager for {reason}, but got {backend!r}.")
        if backend == "flex" and not torch.cuda.is_available():
            raise ValueError(
                "backend must be auto, eager or sdpa on this machine, since FlexAttention has no backward "
                "without a GPU, but got 'flex'."
            )
        if backend == "flex" and self.dropout:
            raise ValueError(f"dropout must be 0 with backend 'flex', which has none, but got {self.dropout}.")

    def _only_eager(self) -> str | None:
        """What no fused kernel can do, if anything."""
        if not self.normaliser.plain:
            return f"the normaliser {type(self.normaliser).__name__}, whose weights no fused kernel makes"
        if self.score.cap is not None:
            return "a score with a cap, which no fused kernel applies"
        if "value_bias" in self.position.acts:
            return f"{type(self.position).__name__}, which adds to the values by weight"
        return None

    @property
    def kernel(self) -> str:
        """What reads: eager, sdpa or flex."""
        if self._only_eager():
            return "eager"
        return "sdpa" if self.backend == "auto" else self.backend

    def queries(self, q: Tensor, layout: Layout) -> Tensor:
        """As the scores take them. (B, T, H, K)"""
        return self.score.prepare(q, "query", lambda x: self.position.rotate(x, layout, "query"))

    def keys(self, k: Tensor, layout: Layout) -> Tensor:
        """As the scores take them. (B, S, G, K)"""
        return self.score.prepare(k, "key", lambda x: self.position.rotate(x, layout, "key"))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """(B, T, H, K), (B, S, G, K), (B, S, G, V) -> (B, T, H, V)"""
        kernel: Kernel = {"eager": self._eager, "sdpa": self._fused, "flex": self._flex}[self.kernel]
        if self.kernel == "eager" or (self.kernel == "sdpa" and "bias" in self.position.acts):
            kernel = in_strips(kernel, per_pair=self.n_heads)  # these write every pair down
        return attend(q.to(v.dtype), k.to(v.dtype), v, view, kernel)

    def weights(self, q: Tensor, k: Tensor, view: View) -> Tensor:
        """What each query gives each key. (B, H, T, S)"""
        return self.normaliser(self.scores(q, k, view), allowed_by(view))

    def scores(self, q: Tensor, k: Tensor, view: View) -> Tensor:
        """How alike each query and each key are, and where they stand. (B, H, T, S)"""
        scores = products(q, k) * self.score.scale
        if self.score.cap is not None:
            scores = self.score.cap * torch.tanh(scores / self.score.cap)
        bias = self._bias(q, k, view)
        return scores if bias is None else scores + bias

    def read(self, weights: Tensor, v: Tensor, view: View) -> Tensor:
        """Add up the values. (B, H, T, S), (B, S, G, V) -> (B, T, H, V)"""
        weights = F.dropout(weights.to(v.dtype), self.dropout, self.training)
        out = weighted(weights, v)
        more = self.position.value_bias(weights, view.queries, view.keys)
        return out if more is None else out + more

    def _eager(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        return self.read(self.weights(q, k, view), v, view)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return fused(q, k, v, view, scale=self.score.scale, bias=self._bias(q, k, view), dropout=dropout)

    def _flex(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        return flexed(q, k, v, view, scale=self.score.scale, bias=self._bias(q, k, view))

    def _bias(self, q: Tensor, k: Tensor, view: View) -> Tensor | None:
        K = self.head_dim  # of wider heads, the position is shown the part that it rotates
        return self.position.bias(q[..., :K], k[..., :K], view.queries, view.keys)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return lowering(self.mask, self.kernel, "bias" in self.position.acts)

    def steps(self, length: int, memory: int | None = None) -> int:
        """Operations that follow one another: the reading, and what its position needs first."""
        return 1 + self.position.steps(length if memory is None else memory)

    def flops(self, length: int, key_dim: int, value_dim: int, memory: int | None = None) -> int:
        """Products of queries with keys and of weights with values, in one row, and those of the position.

        ``memory``: keys of another sequence that the row reads. None: it reads its own.
        """
        inside = bias_flops(self.position, self.mask, length, memory)
        return 2 * pairs(self.mask, length, memory) * self.n_heads * (key_dim + value_dim) + inside


def probability(dropout: float) -> float:
    """``dropout``, if that share of the weights can be dropped; else raises ``ValueError``."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and less than 1, but got {dropout}.")
    return dropout


HOOKS = {
    "rotate": "turn queries and keys",
    "bias": "add to the scores",
    "value_bias": "add to the values",
}


def host(
    position: Callable[[int, int], AttentionPosition] | None,
    n_heads: int,
    head_dim: int,
    mask: Mask,
    refused: Mapping[str, str] | None = None,
) -> AttentionPosition:
    """Build a position, unless it does something that its mixer can not host.

    Args:
        position: Its factory. None: no position.
        n_heads, head_dim: What it acts on.
        mask: Who may see whom.
        refused: Hooks that can not be hosted, and why: "for <the mixer>, <reason>".

    Raises:
        ValueError: The position has one of those hooks, or means nothing under the mask.
    """
    built = (position or AttentionPosition)(n_heads, head_dim)
    for hook, why in (refused or {}).items():
        if hook in built.acts:
            raise ValueError(f"position must not {HOOKS[hook]} {why}, but got {type(built).__name__}.")
    built.admit(mask)
    return built


def look(
    new: Callable[[Tensor, Layout], tuple[Tensor, ...]],
    x: Tensor,
    layout: Layout,
    mask: Mask,
    state: Past | None,
    memory: Memory | None,
) -> tuple[tuple[Tensor, ...], View, Past | None]:
    """What there is to read: this call's tokens, those of the past too, or a memory.

    Args:
        new: Makes of tokens (B, S, D) what is kept of them.
        x, layout, state, memory: As a mixer is called.
        mask: Who may see whom.

    Returns:
        What was kept of each token in sight, what the queries see of it, and the state after this call.
    """
    if memory is not None:
        if state is None:
            kept, where = new(*memory), memory.layout
        else:
            state = state.hold(new(*memory), memory.layout) if state.unread else state
            kept, where = tuple(t.to(x.dtype) for t in state.kept), state.layout
            where = where._replace(dense=memory.layout.dense)
        # Every layer of a forward reads the same memory.
        view = layout.once(("view of the memory", mask), lambda: see(mask, layout, where))
        return kept, view, state
    kept = new(x, layout)
    if state is None:
        return kept, see(mask, layout), None
    kept, past, state = state.append(kept, layout, mask)
    return kept, see(mask, layout, past), state
