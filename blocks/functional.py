"""Mathematics that more than one block needs: what queries see, and the kernels that read it.

Attention is three steps. ``see`` lowers a mask policy to the cheapest form that says it (a ``View``),
once a forward. ``attend`` brings queries, keys and values into the view's frame, where a sparse
pattern is a batch of small dense blocks. A kernel (``fused``, or ``products`` and ``weighted``) works there and
does not know that it does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from blocks.contracts import PAD, AttentionPosition, Layout, Mask, Scratch
from blocks.packing import DocumentBlocks, put, take
from blocks.strips import CausalStrips

# Sparse patterns -------------------------------------------------------------------------------------------------


class Pattern(NamedTuple):
    """Which blocks of keys each block of queries reads, in rows where the index is the position.

    It may name too many; the mask itself is asked about every pair that is read. This is what
    ``Mask.blocks`` holds.

    size: tokens in a block.
    reads: number of blocks n -> (n, m) int64, the blocks that each one reads; repeated ones and those outside
        0 .. n - 1 are dropped. The same for the first blocks however many there are.
    wide: this many first tokens read everything.
    """

    size: int
    reads: Callable[[int], Tensor]
    wide: int = 0

    def also_first(self, tokens: int, both_ways: bool) -> Pattern:
        """This pattern, and every block reads the first ``tokens``; both ways, those read everything."""
        reads, blocks = self.reads, -(-tokens // self.size)
        return Pattern(
            self.size,
            lambda n: torch.cat([reads(n), torch.arange(blocks).expand(n, -1)], dim=1),
            wide=tokens if both_ways else self.wide,
        )

    def table(self, n: int) -> Tensor:
        """(n, m) int64, PAD where a block reads fewer than m; no block twice in a row."""
        table = self.reads(n)
        table = torch.where((table >= 0) & (table < n), table, PAD).sort(dim=1, descending=True).values
        again = F.pad(table[:, 1:] == table[:, :-1], (1, 0))
        return torch.where(again, PAD, table).sort(dim=1, descending=True).values[:, :n]


def band(window: int, causal: bool) -> Pattern:
    """The pattern of a window: a block reads its neighbours, behind or on both sides."""
    size = min(max(window, 32), 128)
    reach = -(-(window - 1) // size)
    ahead = 0 if causal else reach
    return Pattern(size, lambda n: torch.arange(n)[:, None] + torch.arange(-reach, ahead + 1))


def pattern_of(mask: Mask, dense: bool, length: int) -> Pattern | None:
    """The pattern worth following under ``mask`` in rows of ``length`` tokens, if any is.

    A policy's own blocks are meant for rows that are one document; a window holds in packed rows too. (Blocks of
    each document of a packed row depend on where these begin: see ``_see_documents``.)
    """
    best, least = None, length * length
    for pattern in (mask.blocks if dense else None, None if mask.window is None else band(mask.window, mask.causal)):
        # Gathering costs as well: blocks pay when they leave out more than a third.
        if pattern is not None and (made := _pairs(pattern, length)) * 3 <= 2 * least:
            best, least = pattern, made
    return best


def _pairs(pattern: Pattern, length: int) -> int:
    n = -(-length // pattern.size)
    return n * pattern.table(n).shape[1] * pattern.size**2 + min(pattern.wide, length) * length


class Blocks:
    """How to cut rows of T tokens into n blocks of queries, and what keys each of them gets.

    order: (B, T) int64, real tokens of each row first; None: they stand so already.
    """

    def __init__(self, table: Tensor, size: int, length: int, order: Tensor | None) -> None:
        self.table, self.size, self.length = table, size, length
        self.order = order
        self.back = None if order is None else order.argsort(dim=1)
        self.pad = len(table) * size - length

    def queries(self, x: Tensor, fill: float = 0) -> Tensor:
        """(B, T, ...) -> (B n, size, ...)"""
        return self._cut(x, fill).flatten(0, 1)

    def keys(self, x: Tensor, fill: float = 0) -> Tensor:
        """(B, T, ...) -> (B n, m size, ...)"""
        x = self._cut(x, fill)
        B, n, size = x.shape[:3]
        x = x.index_select(1, self.table.clamp(min=0).flatten())  # (B, n m, size, ...)
        return x.reshape(B * n, self.table.shape[1] * size, *x.shape[3:])

    def join(self, x: Tensor) -> Tensor:
        """(B n, size, ...) -> (B, T, ...)"""
        x = x.reshape(-1, len(self.table) * self.size, *x.shape[2:])[:, : self.length]
        return x if self.back is None else _pick(x, self.back)

    def _cut(self, x: Tensor, fill: float) -> Tensor:
        """(B, T, ...) -> (B, n, size, ...)"""
        x = x if self.order is None else _pick(x, self.order)
        x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.pad), value=fill) if self.pad else x
        return x.unflatten(1, (len(self.table), self.size))


def _pick(x: Tensor, order: Tensor) -> Tensor:
    """Tokens of each row by index. (B, T, ...), (B, T) -> (B, T, ...)"""
    return x.gather(1, order.reshape(*order.shape, *(1,) * (x.ndim - 2)).expand_as(x))


# What queries see ------------------------------------------------------------------------------------------------


class View(NamedTuple):
    """What the queries of a call get to see: a mask, lowered to the cheapest form that says it.

    queries, keys: where they sit, in the frame in which the kernel works.
    causal: query t sees keys 0 .. t, and that is all there is to say. At most one of this and ``allowed``.
    allowed: (B, T, S) bool, True where a query may see a key; at least one True in every row.
    blind: (B, T, 1, 1) bool, True where a query sees nothing and ``allowed`` is a pretence.
    blocks: how to bring rows into the frame. None: they are in it.
    wide: the view of the first tokens, where these see more than the blocks have.
    at: (B, W) int64, which tokens ``wide`` is the view of; T for none. None: the first of the row.
    """

    queries: Layout
    keys: Layout
    causal: bool = False
    allowed: Tensor | None = None
    blind: Tensor | None = None
    blocks: Blocks | DocumentBlocks | None = None
    wide: View | None = None
    at: Tensor | None = None


def see(mask: Mask, queries: Layout, keys: Layout | None = None) -> View:
    """Lower ``mask``, once a forward for each distinct policy.

    Args:
        mask: The policy.
        queries: Where the queries sit.
        keys: Where the keys sit. None: they are the queries' own tokens.
    """
    if keys is not None:
        return _see_others(mask, queries, keys)
    return queries.once(("view", mask), lambda: _see_own(mask, queries))


def _see_own(mask: Mask, layout: Layout) -> View:
    if mask.plain and layout.dense:
        return View(layout, layout, causal=mask.causal)
    length = layout.position.shape[1]
    pattern = pattern_of(mask, layout.dense, length)
    if pattern is None:
        return _see_documents(mask, layout) or _hide(View(layout, layout), mask)

    n = -(-length // pattern.size)
    order = None if layout.dense else (~layout.real).long().argsort(dim=1, stable=True)
    blocks = Blocks(pattern.table(n).to(layout.position.device), pattern.size, length, order)
    outside = (blocks.table == PAD).repeat(len(layout.position), 1).repeat_interleave(pattern.size, dim=1)
    queries = _each(layout, lambda t: blocks.queries(t, fill=PAD))
    keys = _each(layout, lambda t: blocks.keys(t, fill=PAD).masked_fill(outside, PAD))
    view = _hide(View(queries, keys, blocks=blocks), mask)
    wide = min(pattern.wide, length)
    return view._replace(wide=_see_others(mask, _part(layout, wide), layout)) if wide else view


def _see_documents(mask: Mask, layout: Layout) -> View | None:
    """A policy's own blocks in packed or padded rows, if following them pays."""
    pattern, length, place = mask.blocks, layout.position.shape[1], layout.position.device
    # How many blocks there are is known to the device only, and nowhere while compiling.
    if pattern is None or layout.dense or place.type == "meta" or torch.compiler.is_compiling():
        return None
    if length <= pattern.size or not layout.real.any():
        return None
    table = pattern.table(int(layout.position.max()) // pattern.size + 1).to(place)
    blocks = DocumentBlocks.of(layout, pattern.size, table)
    first = layout.real & (layout.position < pattern.wide)
    wide = int(first.sum(1).max())
    if (blocks.pairs + wide * length) * 3 > 2 * length * length:
        return None
    queries, keys = (_each(layout, functools.partial(cut, fill=PAD)) for cut in (blocks.queries, blocks.keys))
    view = _hide(View(queries, keys, blocks=blocks), mask)
    if not wide:
        return view
    at = torch.where(first, torch.arange(length, device=place), length).sort(dim=1).values[:, :wide]
    return view._replace(wide=_see_others(mask, _each(layout, lambda t: take(t, at, PAD)), layout), at=at)


def _see_others(mask: Mask, queries: Layout, keys: Layout) -> View:
    # Nothing that a position shares between layers under its own name may be mistaken for a view of other keys.
    view = View(queries._replace(scratch=None), keys._replace(scratch=None))
    if mask.plain and not mask.causal and queries.dense and keys.dense:
        return view
    return _hide(view, mask)


def _hide(view: View, mask: Mask) -> View:
    """Evaluate the mask for every pair. A query without a visible key attends to all keys, so that its softmax stays
    finite; its output is set to zero."""
    allowed = mask(view.queries, view.keys)
    nothing = ~allowed.any(dim=-1, keepdim=True)  # (B, T, 1)
    return view._replace(allowed=allowed | nothing, blind=nothing[..., None])


def _each(layout: Layout, change: Callable[[Tensor], Tensor]) -> Layout:
    heads = None if layout.heads is None else change(layout.heads)
    return Layout(change(layout.position), change(layout.document), heads=heads, scratch=Scratch())


def _part(layout: Layout, length: int) -> Layout:
    return layout.slice(0, length)._replace(dense=layout.dense)


# Kernels ---------------------------------------------------------------------------------------------------------

Kernel = Callable[[Tensor, Tensor, Tensor, View], Tensor]
"""Queries (B, T, H, K), keys (B, S, G, K), values (B, S, G, K') and what may be seen -> (B, T, H, K')"""


def attend(q: Tensor, k: Tensor, v: Tensor, view: View, kernel: Kernel) -> Tensor:
    """Read with ``kernel`` in the view's own frame. (B, T, H, K'); exactly zero where a query sees nothing."""
    if view.blocks is None:
        out = kernel(q, k, v, view)
        return out if view.blind is None else out.masked_fill(view.blind, 0.0)
    blocks = view.blocks
    framed = view._replace(blocks=None, wide=None, at=None)
    out = blocks.join(attend(blocks.queries(q), blocks.keys(k), blocks.keys(v), framed, kernel))
    if view.wide is None:
        return out
    if view.at is not None:
        return put(out, view.at, attend(take(q, view.at), k, v, view.wide, kernel))
    n = view.wide.queries.position.shape[1]
    return torch.cat([attend(q[:, :n], k, v, view.wide, kernel), out[:, n:]], dim=1)


AT_ONCE, STRIP = 2**26, 2**22
"""Numbers that a kernel may make for the pairs of a call; where there are more, strips of queries make so many each."""

ROOMIER = 16
"""How many times as much that may be on a GPU, which small strips would leave idle."""


def in_strips(kernel: Kernel, per_pair: int) -> Kernel:
    """``kernel``, a strip of queries after the other where all pairs at once would take too much memory.

    The backward makes the numbers of a strip again, so that memory grows with T, not with T S.
    The first strips of a causal view are not shown the keys that nobody in them sees.

    Args:
        kernel: What reads; a query may not depend on another query.
        per_pair: Numbers that it makes for each query and key of a row.
    """

    def read(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        B, T = q.shape[:2]
        S = k.shape[1]
        room = 1 if q.device.type == "cpu" else ROOMIER
        if B * T * S * per_pair <= AT_ONCE * room:
            return kernel(q, k, v, view)

        def of(strip: slice) -> Tensor:
            stop = strip.stop if view.causal else None
            return kernel(q[:, strip], k[:, :stop], v[:, :stop], _strip(view, strip))

        strips = _strips(T, None if view.causal else S, STRIP * room // (B * per_pair))
        if not torch.is_grad_enabled():
            return torch.cat([of(strip) for strip in strips], dim=1)
        return torch.cat([checkpoint(of, strip, use_reentrant=False) for strip in strips], dim=1)

    return read


def _strips(queries: int, keys: int | None, most: int) -> list[slice]:
    """Strips of ``most`` pairs, or of one query. ``keys``: what each query meets; None: all up to the strip's end."""
    strips, stop = [], 0
    while stop < queries:
        start = stop
        size = (math.isqrt(start * start + 4 * most) - start) // 2 if keys is None else most // keys
        stop = min(start + max(size, 1), queries)
        strips.append(slice(start, stop))
    return strips


def _strip(view: View, strip: slice) -> View:
    """What some of the queries see. It shares nothing with other strips: one that is made again must make it all."""
    queries = view.queries.slice(strip.start, strip.stop)
    if not view.causal:
        allowed = None if view.allowed is None else view.allowed[:, strip]
        return View(queries, view.keys._replace(scratch=None), allowed=allowed)
    n = strip.stop - strip.start
    allowed = torch.ones(n, strip.stop, dtype=torch.bool, device=queries.position.device).tril(strip.start)
    return View(queries, view.keys.slice(0, strip.stop), allowed=allowed[None])


def products(q: Tensor, k: Tensor) -> Tensor:
    """Every query times every key; consecutive query heads share a key head. (B, H, T, S)"""
    B, T, H, _ = q.shape
    G = k.shape[2]
    q = q.unflatten(2, (G, H // G)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, G, H/G T, K)
    return (q @ k.permute(0, 2, 3, 1)).reshape(B, H, T, -1)


def weighted(weights: Tensor, v: Tensor) -> Tensor:
    """Sums of values. (B, H, T, S), (B, S, G, K) -> (B, T, H, K)"""
    B, H, T, S = weights.shape
    G = v.shape[2]
    out = weights.reshape(B, G, H // G * T, S) @ v.transpose(1, 2)  # (B, G, H/G T, K)
    return out.reshape(B, H, T, -1).transpose(1, 2)


def allowed_by(view: View) -> Tensor | None:
    """What may be seen, written out. (B or 1, 1, T, S), or None for everything."""
    if view.causal:
        T = view.queries.position.shape[1]
        return torch.ones(T, T, dtype=torch.bool, device=view.queries.position.device).tril()[None, None]
    return None if view.allowed is None else view.allowed[:, None]


def fused(
    q: Tensor, k: Tensor, v: Tensor, view: View, *, scale: float, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Softmax attention in as few passes as the device allows. ``bias``: (B or 1, H, T, S). -> (B, T, H, K')"""
    if q.device.type == "cpu":
        return _on_cpu(q, k, v, view, scale, bias, dropout)
    mask = None if view.causal and bias is None else _added(view, bias, q.dtype)
    return _sdpa(q, k, v, mask, scale, dropout, causal=view.causal and bias is None)


def _on_cpu(q: Tensor, k: Tensor, v: Tensor, view: View, scale: float, bias: Tensor | None, dropout: float) -> Tensor:
    """Torch's kernel for CPUs multiplies what a short causal mask hides, and in bfloat16 it runs at half the speed of
    plain matrix products. (Measured: 8 rows of 256 tokens, forward + backward, 38 ms; 31 ms in strips; in
    bfloat16 38 ms; 15 ms in strips of products. In float32, another day: 18.4 ms in strips, 15.4 ms in strips of
    products with a backward of their own.)"""
    T, S = q.shape[1], k.shape[1]
    alike = q.shape[2] == k.shape[2] and q.dtype in (torch.float32, torch.float64)
    if view.causal and bias is None and T <= 512 and alike and not dropout and not torch.compiler.is_compiling():
        return CausalStrips.apply(q, k, v, scale)
    by_hand = q.dtype == torch.bfloat16 and S <= 1024  # it keeps the weights: not for long rows
    kernel = _by_hand if by_hand else _sdpa_of_one_width
    if view.causal and bias is None and (1024 if by_hand else 512) >= T:
        hidden = torch.full((T, T), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        size = 128 if by_hand else 64
        strips = [slice(start, min(start + size, T)) for start in range(0, T, size)]
        rows = [kernel(q[:, s], k[:, : s.stop], v[:, : s.stop], hidden[s, : s.stop], scale, dropout) for s in strips]
        return torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]
    if view.causal and bias is None:
        return kernel(q, k, v, None, scale, dropout, causal=True)
    return kernel(q, k, v, _added(view, bias, q.dtype), scale, dropout)


def _added(view: View, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What is seen and the bias as one tensor to add to the scores (bool if there is no bias)."""
    allowed = allowed_by(view)
    if bias is None:
        return allowed
    bias = bias.to(dtype)
    return bias if allowed is None else bias.masked_fill(~allowed, float("-inf"))


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float, causal: bool = False
) -> Tensor:
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )  # (B, H, T, K')
    return out.transpose(1, 2)


def _sdpa_of_one_width(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float, causal: bool = False
) -> Tensor:
    """``_sdpa``, where the kernel wants values as wide as keys."""
    K, V = q.shape[-1], v.shape[-1]
    q, k, v = (F.pad(t, (0, max(K, V) - t.shape[-1])) if K != V else t for t in (q, k, v))
    return _sdpa(q, k, v, mask, scale, dropout, causal)[..., :V]


def _by_hand(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float, causal: bool = False
) -> Tensor:
    scores = products(q * scale, k)
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(~mask, float("-inf"))
    elif mask is not None:
        scores += mask
    return weighted(F.dropout(scores.softmax(dim=-1), dropout), v)


def flexed(q: Tensor, k: Tensor, v: Tensor, view: View, *, scale: float, bias: Tensor | None = None) -> Tensor:
    """Softmax attention by FlexAttention, which skips blocks of keys that nobody in a block of queries sees."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    B, T, H, _ = q.shape
    S = k.shape[1]
    allowed = allowed_by(view)
    rule = None
    if allowed is not None:
        allowed = allowed.expand(B, 1, T, S)

        def make() -> Any:
            return create_block_mask(lambda b, h, i, j: allowed[b, 0, i, j], B, None, T, S, device=str(q.device))

        rule = view.queries.once(("flex", view.allowed, T, S), make)
    added = None if bias is None else bias.to(q.dtype).expand(B, H, T, S)
    score = None if added is None else (lambda s, b, h, i, j: s + added[b, h, i, j])
    kernel: Any = _compiled_flex() if q.device.type == "cuda" else flex_attention
    out = kernel(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        score_mod=score,
        block_mask=rule,
        scale=scale,
        enable_gqa=k.shape[2] != H,
    )
    return out.transpose(1, 2)


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


# What it costs ---------------------------------------------------------------------------------------------------


def pairs(mask: Mask, length: int, memory: int | None = None) -> int:
    """Products of a query and a key that are computed in one whole row, seen or not.

    A long causal row in strips, or in a fused kernel, is spared up to half of them. Of a memory of ``memory`` tokens
    all are computed.
    """
    if memory is not None:
        return length * memory
    pattern = pattern_of(mask, True, length)
    return length * length if pattern is None else _pairs(pattern, length)


def lowering(mask: Mask, kernel: str, biased: bool = False) -> str:
    """How long whole rows are read under ``mask``: native, or a dense fallback that computes every pair."""
    if mask.plain and not mask.causal:
        form = "native: everything is seen"
    elif mask.plain and kernel != "eager" and not biased:
        form = "native: is_causal"
    elif mask.blocks is not None:
        form = "native: blocks"
    elif mask.window is not None:
        form = "native: band"
    else:
        form = "dense fallback"
    return f"{form} ({kernel})"


def bias_flops(position: AttentionPosition, mask: Mask, length: int, memory: int | None = None) -> int:
    """Matrix products in a position's bias and value bias, in one whole row, or where it reads a memory."""
    if memory is not None:
        return position.flops(length, memory)
    pattern = pattern_of(mask, True, length)
    if pattern is None:
        return position.flops(length, length)
    n, wide = -(-length // pattern.size), min(pattern.wide, length)
    inside = n * position.flops(pattern.size, pattern.size * pattern.table(n).shape[1])
    return inside + (position.flops(wide, length) if wide else 0)


# Parts of scores -------------------------------------------------------------------------------------------------


def seen_keys(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """How many keys each query has in sight. (B, 1, T, 1) or a number, in the scores' dtype"""
    if allowed is None:
        return scores.new_tensor(scores.shape[-1])
    return allowed.sum(dim=-1, keepdim=True).to(scores.dtype)
