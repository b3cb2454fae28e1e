"""First-order linear recurrences, h_t = a_t h_{t-1} + b_t, over documents and without a loop over tokens.

Two such steps are one such step, so a row is summed up in pairs, pairs of pairs, ..., and the sums are
handed back down: about 2 log2 T rounds and 2 T multiply-adds, whatever the values. Nothing is divided
and no logarithm taken, so that a may be zero (a document starts), one (padding) or complex.

Blelloch 1990, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf
Martin and Cundy 2018, https://arxiv.org/abs/1709.04057
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blocks.contracts import PAD, Layout


def scan_documents(a: Tensor, b: Tensor, layout: Layout, past: Tensor | None = None, reverse: bool = False) -> Tensor:
    """``h_t = a_t h_{t-1} + b_t`` inside each document; held over padding. (B, T, ...)

    Args:
        a: What is kept of the state at each token. (B, T, ...)
        b: What is added. (B, T, ...)
        layout: Where the tokens sit.
        past: The state before this call, for documents that began earlier. (B, ...)
        reverse: From the last token of each document to its first.

    Returns:
        The state after each token. (B, T, ...); the last one is what to go on from.
    """
    if layout.dense:
        return scan(a, b, reverse)
    padding, first = _spread(layout.position == PAD, a), _spread(layout.position == 0, a)
    if reverse:  # what follows a document in its row ends at the token before it
        first = torch.cat([first[:, 1:], first[:, :1]], dim=1)
    a, b = a.masked_fill(padding, 1.0).masked_fill(first, 0.0), b.masked_fill(padding, 0.0)
    if past is not None:
        b = torch.cat([torch.addcmul(b[:, :1], a[:, :1], past[:, None].to(b.dtype)), b[:, 1:]], dim=1)
    return scan(a, b, reverse)


def scan_both_ways(a: Tensor, b: Tensor, layout: Layout) -> Tensor:
    """The first half of the features from each document's first token on, the second half from its last. (B, T, F)"""
    (a_on, a_back), (b_on, b_back) = a.chunk(2, dim=-1), b.chunk(2, dim=-1)
    on = scan_documents(a_on, b_on, layout)
    return torch.cat([on, scan_documents(a_back, b_back, layout, reverse=True)], dim=-1)


def scan(a: Tensor, b: Tensor, reverse: bool = False) -> Tensor:
    """``h_t = a_t h_{t-1} + b_t`` along the second axis, from zero; ``reverse``: from ``h_{t+1}``. (B, T, ...)"""
    return b if b.shape[1] == 1 else _scan(a, b, reverse)


def rounds(length: int) -> int:
    """How many operations follow one another in the scan of a row; at least one."""
    return max(1, len(_up(length)) + len(_down(length)))


def _spread(flags: Tensor, like: Tensor) -> Tensor:
    """(B, T) -> (B, T, 1, ...), with as many axes as ``like``."""
    return flags.reshape(flags.shape + (1,) * (like.ndim - 2))


@torch.library.custom_op("blockwright::scan", mutates_args=())  # one node to a compiler, and not log2 T of them
def _scan(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    T = a.shape[1]
    a, h = a.clone(), b.clone()
    for later, earlier in _up(T):
        to, of = _mirrored(later, T, reverse), _mirrored(earlier, T, reverse)
        h[:, to].addcmul_(a[:, to], h[:, of])
        a[:, to].mul_(a[:, of])
    for later, earlier in _down(T):
        to, of = _mirrored(later, T, reverse), _mirrored(earlier, T, reverse)
        h[:, to].addcmul_(a[:, to], h[:, of])
    return h


@_scan.register_fake
def _(a: Tensor, b: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(b)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    a, _, ctx.reverse = inputs
    ctx.save_for_backward(a, output)


def _back(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    """What flows back is scanned too, the other way round."""
    a, h = ctx.saved_tensors
    before = -1 if ctx.reverse else 1
    to_b = _scan(_shifted(a, -before).conj().resolve_conj(), grad, not ctx.reverse)
    return to_b * _shifted(h, before).conj(), to_b, None


_scan.register_autograd(_back, setup_context=_keep)


def _up(length: int) -> list[tuple[range, range]]:
    """Rounds that sum up: the end of each stretch of 2 s tokens takes in the end of its first half."""
    strides = [1 << i for i in range(length.bit_length() - 1)]
    return [(range(2 * s - 1, length, 2 * s), range(s - 1, length - s, 2 * s)) for s in strides]


def _down(length: int) -> list[tuple[range, range]]:
    """Rounds that hand down: the middle of each stretch of 2 s tokens takes in the end of the one before."""
    strides = [1 << i for i in reversed(range(length.bit_length() - 1))]
    pairs = [(range(3 * s - 1, length, 2 * s), range(2 * s - 1, length - s, 2 * s)) for s in strides]
    return [pair for pair in pairs if len(pair[0])]


def _mirrored(places: range, length: int, mirror: bool) -> slice:
    """``places`` as a slice; counted from the other end, if ``mirror``."""
    if mirror:
        places = range(length - 1 - places[-1], length - places[0], places.step)
    return slice(places.start, places.stop, places.step)


def _shifted(x: Tensor, by: int) -> Tensor:
    """``x`` one token later (``by`` 1) or earlier (-1), with zeros let in. (B, T, ...)"""
    none = torch.zeros_like(x[:, :1])
    return torch.cat([none, x[:, :-1]], dim=1) if by == 1 else torch.cat([x[:, 1:], none], dim=1)
