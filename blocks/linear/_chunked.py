"""Sums of key-value products that fade, as matrix products over chunks: linear in length, no loop over tokens.

Every mixer of this family is one of three recurrences on a matrix S (``a``: what is left of the past)

    fading     S_t = a_t S_{t-1} + k_t v_t^T                              one decay a head, or none
    channels   S_t = diag(a_t) S_{t-1} + k_t v_t^T                        one decay a key channel
    delta      S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T      what k_t recalled is replaced

read by ``o_t = S_t^T q_t``. Inside a chunk of C tokens all pairs are weighed at once; from chunk to chunk only S
goes. Decays are logarithms: of token s, token t finds ``exp(total_t - total_s)`` left, and nothing but differences
that are at most zero is ever exponentiated. Padding writes nothing and fades nothing; a document starts from zero.

Axes: N chunks of C tokens stand ahead of the batch, so that a chunk is one piece of memory. (N, B, H, C, K)

Hua et al. 2022, https://arxiv.org/abs/2202.10447
Yang et al. 2023, https://arxiv.org/abs/2312.06635
Dao and Gu 2024, https://arxiv.org/abs/2405.21060
Yang et al. 2024, https://arxiv.org/abs/2406.06484
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import PAD, Layout, Mask, State

SHORT, LONG = 32, 64
"""The most tokens of a chunk, by the size of a state: longer ones weigh more pairs, shorter ones carry more states."""

FORGOTTEN = -50.0
"""The logarithm of what is as good as nothing. Greater ones would take the digits that their neighbours' sums need."""


@dataclass(frozen=True, slots=True)
class Outer(State):
    """The sum of the key-value products so far, each faded by what came after it."""

    s: Tensor  # (B, H, K, V), float32 at least


def empty_sum(like: Tensor, rows: int, n_heads: int, key_dim: int, value_dim: int) -> Tensor:
    """Nothing, on the device of ``like`` and at least as exact. (B, H, K, V)"""
    return _widen(like.new_zeros(0)).new_zeros(rows, n_heads, key_dim, value_dim)


class Kernel(NamedTuple):
    """How queries and keys meet: ``pairs(q, k) @ v`` is ``read(q, write(k, v))``."""

    pairs: Callable[[Tensor, Tensor], Tensor]  # (..., C, K), (..., C, K) -> (..., C, C)
    write: Callable[[Tensor, Tensor], Tensor]  # (..., C, K), (..., C, V) -> (..., F, V)
    read: Callable[[Tensor, Tensor], Tensor]  # (..., C, K), (..., F, V) -> (..., C, V)
    n_features: int | None = None  # F; None: as many as channels


PRODUCT = Kernel(lambda q, k: q @ k.mT, lambda k, v: k.mT @ v, lambda q, s: q @ s)


def fading(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    layout: Layout,
    s: Tensor | None,
    kernel: Kernel = PRODUCT,
) -> tuple[Tensor, Tensor | None]:
    """Read a sum that fades by one decay a head.

    Args:
        q: What reads. (B, T, H, K), or (B, T, 1, K) for all heads alike
        k: What is written under. The same shape
        v: What is written. (B, T, H, V)
        log_decay: What the past has left at each token, at most 0. (B or 1, T, H). None: all of it.
        layout: Where the tokens sit.
        s: The sum so far. (B, H, F, V). None: there is none and none is asked for.
        kernel: What a query and a key make of one another.

    Returns:
        What was read, (B, T, H, V), and the sum that now includes these tokens.
    """
    v, log_decay = _held(v, layout), _fades(log_decay, layout)
    with exact(q.device):
        q, k, v = _widen(q), _widen(k), _widen(v)
        if s is not None and q.shape[1] == 1:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, 1, K)
            s = _recall(s, log_decay, layout) + kernel.write(k, v)
            return kernel.read(q, s).transpose(1, 2), s

        length = q.shape[1]
        size = chunk_of(length, kernel.n_features or q.shape[3], v.shape[3])
        q, k, v = (_split(t, size) for t in (q, k, v))
        w = _weigh(log_decay, layout, length, size)
        out = (kernel.pairs(q, k) * w.pair) @ v  # (N, B, H, C, V)
        if s is not None or len(q) > 1:
            past, s = _carry(w.keep, kernel.write(k, _times(v, w.leave)), s, layout)
            out = out + _times(kernel.read(q, past), w.enter)
        return _join(out, length), s


def channels(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, layout: Layout, s: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Read a sum whose key channels fade each by a decay of its own, (B, T, H, K); the rest as for ``fading``."""
    v, log_decay = _held(v, layout), _fades(log_decay, layout)
    with exact(q.device):
        q, k, v = _widen(q), _widen(k), _widen(v)
        if s is not None and q.shape[1] == 1:
            s = _recall(s, log_decay, layout) + k[:, 0, :, :, None] * v[:, 0, :, None, :]
            return _read(q, s), s

        length, size = q.shape[1], even_chunk_of(q.shape[1], q.shape[3], v.shape[3])
        q, k, v, total = (_split(t, size) for t in (q, k, v, log_decay))
        total = total.cumsum(-2)  # (N, B, H, C, K)
        w = _weigh(None, layout, length, size)
        out = (_channel_scores(q, k, total) * w.pair) @ v
        if s is not None or len(q) > 1:
            end = total[..., -1:, :]
            written = _times(k * (end - total).exp(), w.leave)
            past, s = _carry(_times(end.exp().mT, w.keep), written.mT @ v, s, layout)
            out = out + _times(q * total.exp(), w.enter) @ past
        return _join(out, length), s


def delta(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, layout: Layout, s: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Read a sum in which a key's new value replaces its old one to the part ``beta``, (B, T, H); the rest as above.

    What token t adds under its key is ``r_t = b_t (v_t - a_t S_{t-1}^T k_t)``. In a chunk that S enters these solve
    ``(I + L) r = b v - (b enter k) S`` where ``L_ts = b_t pair_ts k_t.k_s`` for s < t: one triangular system.
    """
    beta, log_decay = _held(beta, layout), _fades(log_decay, layout)
    with exact(q.device):
        q, k, v, beta = _widen(q), _widen(k), _widen(v), _widen(beta)
        if s is not None and q.shape[1] == 1:
            s = _recall(s, log_decay, layout)
            added = beta[:, 0, :, None] * (v - _read(k, s))[:, 0]
            s = s + k[:, 0, :, :, None] * added[:, :, None, :]
            return _read(q, s), s

        length, size = q.shape[1], chunk_of(q.shape[1], q.shape[3], v.shape[3])
        q, k, v, b = (_split(t, size) for t in (q, k, v, beta[..., None]))
        w = _weigh(log_decay, layout, length, size)
        scores = q @ k.mT * w.pair  # (N, B, H, C, C)
        within = b * k @ k.mT * w.pair
        if s is None and len(q) == 1:
            return _join(scores @ _solve(within, b * v), length), None

        added, replaced = _solve(within, torch.cat([b * v, _times(b * k, w.enter)], -1)).split(
            [v.shape[-1], k.shape[-1]], -1
        )
        written = _times(k, w.leave).mT  # (N, B, H, K, C)
        eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
        past, s = _carry(_times(eye, w.keep) - written @ replaced, written @ added, s, layout, torch.matmul)
        out = scores @ (added - replaced @ past) + _times(q @ past, w.enter)
        return _join(out, length), s


def everywhere(q: Tensor, k: Tensor, v: Tensor, layout: Layout, kernel: Kernel = PRODUCT) -> Tensor:
    """Read the sum over the whole document, of which nothing fades. Shapes as for ``fading``."""
    q, k, v = _widen(q), _widen(k), _widen(_held(v, layout))
    if layout.dense:
        with exact(q.device):
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, T, K)
            return kernel.read(q, kernel.write(k, v)).transpose(1, 2)
    so_far, _ = fading(q, k, v, None, layout, None, kernel)
    to_come, _ = fading(q.flip(1), k.flip(1), v.flip(1), None, backwards(layout), None, kernel)
    with exact(q.device):
        itself = kernel.pairs(q[..., None, :], k[..., None, :])[..., 0] * v
    return so_far + to_come.flip(1) - itself  # which was counted twice


def both_ways(mix: Callable[..., Tensor], layout: Layout, *inputs: Tensor) -> Tensor:
    """The mean of ``mix(layout, *inputs)`` over each document read forwards and read backwards."""
    there = mix(layout, *inputs)
    back = mix(backwards(layout), *(t.flip(1) for t in inputs)).flip(1)
    return (there + back) / 2


def backwards(layout: Layout) -> Layout:
    """The layout of the tokens in reverse order: the last token of a document is its first."""
    number = (layout.position == 0).cumsum(1)
    last = number.new_zeros(len(number), number.shape[1] + 1).scatter_reduce(1, number, layout.position, "amax")
    position = torch.where(layout.real, last.gather(1, number) - layout.position, PAD)
    return layout._replace(position=position.flip(1), document=layout.document.flip(1), heads=None, scratch=None)


def exact(device: torch.device) -> AbstractContextManager[object]:
    """Autocast would round the sums."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def unit(x: Tensor) -> Tensor:
    """To length one in the last axis (zero stays zero), float32 at least."""
    x = _widen(x)
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def require_plain(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless ``mask`` says nothing but a direction."""
    if not mask.plain:
        raise ValueError(
            f"mask must be causal or full for {mixer}, whose sum can not leave single tokens out, "
            f"but got {type(mask).__name__}."
        )


def require_causal(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless a past can be gone on from."""
    if not mask.causal:
        raise ValueError(f"mask must be causal for {mixer} to go on from a past, but it reads both ways.")


def chunk_of(length: int, key_dim: int, value_dim: int) -> int:
    """The tokens of a chunk when a length is cut as evenly as can be, for states of this size."""
    return -(-length // n_chunks(length, key_dim, value_dim))


def even_chunk_of(length: int, key_dim: int, value_dim: int) -> int:
    """The same, rounded up to a power of two."""
    return 1 << (chunk_of(length, key_dim, value_dim) - 1).bit_length()


def n_chunks(length: int, key_dim: int, value_dim: int) -> int:
    """The chunks of a length, whose states follow one another."""
    return -(-length // (LONG if key_dim * value_dim > SHORT * SHORT else SHORT))


class _Weights(NamedTuple):
    """What is left of one time at another, by chunk: between 0 and 1, and 0 across documents. None: all of it."""

    pair: Tensor  # (N, B, H, C, C), of an earlier token (last axis) at a later one
    enter: Tensor | None = None  # (N, B, H, C, 1), of what enters a chunk at each token
    leave: Tensor | None = None  # (N, B, H, C, 1), of each token at the end of its chunk
    keep: Tensor | None = None  # (N, B, H, 1, 1), of what enters a chunk at its end


def _weigh(log_decay: Tensor | None, layout: Layout, length: int, size: int) -> _Weights:
    """What order, documents and decay leave. ``log_decay``: (B or 1, T, H)"""
    allowed = torch.ones(size, size, dtype=torch.bool, device=layout.position.device).tril()
    enter = leave = keep = None
    if not layout.dense:
        number = (layout.position == 0).cumsum(1)  # of the document in its row; 0 goes on from the past
        number = torch.cat([number, number[:, -1:].expand(-1, -length % size)], 1)
        number = number.unflatten(1, (-1, size)).transpose(0, 1)[:, :, None, :, None]  # (N, B, 1, C, 1)
        after = number[..., -1:, :]
        before = torch.cat([torch.zeros_like(after[:1]), after[:-1]])
        allowed = allowed & (number == number.mT)
        enter, leave, keep = number == before, number == after, after == before
    if log_decay is None:
        return _Weights(allowed, enter, leave, keep)

    total = _split(log_decay[..., None], size).cumsum(-2)  # (N, B, H, C, 1)
    end = total[..., -1:, :]
    return _Weights(
        (total - total.mT).masked_fill(~allowed, -torch.inf).exp(),
        _times(total.exp(), enter),
        _times((end - total).exp(), leave),
        _times(end.exp(), keep),
    )


def _carry(
    keep: Tensor | None,
    update: Tensor,
    s: Tensor | None,
    layout: Layout,
    times: Callable[[Tensor, Tensor], Tensor] = torch.mul,
) -> tuple[Tensor, Tensor | None]:
    """From chunk to chunk, ``s <- keep s + update``: what enters each (N, B, H, K, V), and what leaves the last."""
    state = torch.zeros_like(update[0]) if s is None or layout.dense else s
    keeps = [None] * len(update) if keep is None else keep.unbind()
    past = []
    for kept, new in zip(keeps, update.unbind(), strict=True):
        past.append(state)
        state = new + (state if kept is None else times(kept, state))
    return torch.stack(past), None if s is None else state


def _channel_scores(q: Tensor, k: Tensor, total: Tensor) -> Tensor:
    """``sum_i q_ti k_si exp(total_ti - total_si)`` for s <= t, zero above. (N, B, H, C, K) -> (N, B, H, C, C)

    The product can not be taken apart into one of q and one of k, whose exponentials would overflow. But for keys in
    the earlier half of a block and queries in the later half it can, around the middle; so by halves of halves.
    """
    scores = (q * k).sum(-1)[..., None, None]  # (N, B, H, C / 1, 1, 1), each token with itself
    size = 1
    while size < q.shape[-2]:
        (early_k, late_q), (early, late) = (
            (a.unflatten(-2, (-1, 2, size))[..., 0, :, :], b.unflatten(-2, (-1, 2, size))[..., 1, :, :])
            for a, b in ((k, q), (total, total))
        )
        middle = early[..., -1:, :]
        across = (late_q * (late - middle).exp()) @ (early_k * (middle - early).exp()).mT
        first, second = scores.unflatten(-3, (-1, 2)).unbind(-3)
        above = torch.cat([first, torch.zeros_like(across)], -1)
        scores = torch.cat([above, torch.cat([across, second], -1)], -2)  # (..., C / 2 size, 2 size, 2 size)
        size *= 2
    return scores.squeeze(-3)


def _solve(within: Tensor, right: Tensor) -> Tensor:
    """``(I + within)^-1 right``, of ``within`` only what is below the diagonal."""
    return torch.linalg.solve_triangular(within, right, upper=False, unitriangular=True)


def _held(x: Tensor, layout: Layout) -> Tensor:
    """Zero at padding, so that it writes nothing and fades nothing. (B or 1, T, ...)"""
    return x if layout.dense else torch.where(layout.real.view(*layout.real.shape, *(1,) * (x.dim() - 2)), x, 0.0)


@overload
def _fades(log_decay: Tensor, layout: Layout) -> Tensor: ...


@overload
def _fades(log_decay: None, layout: Layout) -> None: ...


def _fades(log_decay: Tensor | None, layout: Layout) -> Tensor | None:
    """The decays of real tokens, in numbers that can be summed."""
    return None if log_decay is None else _held(_widen(log_decay).clamp(min=FORGOTTEN), layout)


def _widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _recall(s: Tensor, log_decay: Tensor | None, layout: Layout) -> Tensor:
    """What one token finds of the sum before it. (B, H, K, V)"""
    old = (layout.position != 0)[..., None, None]  # (B, 1, 1, 1)
    if log_decay is None:
        return s * old
    decay = log_decay[:, 0].exp()  # (B, H) or (B, H, K)
    return s * old * decay.unflatten(-1, (-1, 1)).reshape(*decay.shape[:2], -1, 1)


def _read(q: Tensor, s: Tensor) -> Tensor:
    """(B, 1, H, K), (B, H, K, V) -> (B, 1, H, V)"""
    return (q.transpose(1, 2) @ s).transpose(1, 2)


def _split(x: Tensor, size: int) -> Tensor:
    """(B, T, H, K) -> (N, B, H, C, K), with zeros behind the last token."""
    missing = -x.shape[1] % size
    x = F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
    return x.unflatten(1, (-1, size)).permute(1, 0, 3, 2, 4).contiguous()


def _join(x: Tensor, length: int) -> Tensor:
    """(N, B, H, C, V) -> (B, T, H, V)"""
    return x.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :length]


def _times(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight
