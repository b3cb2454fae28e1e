"""Runs torch's fused recurrent kernels over documents, wherever they sit in a batch.

A kernel reads whole rows. Where rows are padded, packed or resumed, the real tokens are handed to it
as a ``PackedSequence`` of documents instead: no step is spent on padding and no state passes from one
document to the next.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from blocks.contracts import Layout, Mask

Carried = tuple[Tensor, ...]
"""What a cell carries from token to token, each (B, d_hidden): hidden, or hidden and cell."""


def must_read_every_token(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is plainly causal or full."""
    if not mask.plain:
        raise ValueError(
            f"mask must be causal or full for {mixer}, which has no way to skip tokens, but got {type(mask).__name__}."
        )


def must_look_back(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is causal, as a state needs it to be."""
    if not mask.causal:
        raise ValueError(f"mask must be causal to go on from a state, but this {mixer} reads both ways.")


def run(cell: nn.RNNBase, x: Tensor, layout: Layout, past: Carried = ()) -> tuple[Tensor, Carried]:
    """Run ``cell`` over every document. (B, T, D) -> (B, T, directions · d_hidden)

    Args:
        cell: One layer of ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``, batch first.
        x: The tokens of this call. (B, T, D)
        layout: Where they sit.
        past: What each row carried out of the last call; nothing for zeros.

    Returns:
        What the cell says of each token (zero or ignored at padding), and what each row carries out of this call.
    """
    x = x.to(next(cell.parameters()).dtype)
    if layout.dense:
        y, carried = _call(cell, x)
        return y, tuple(new[0].to(old.dtype) for new, old in zip(carried, past, strict=False))
    if x.shape[1] == 1:
        y, carried = _call(cell, x, tuple(old.masked_fill(layout.position == 0, 0.0) for old in past))
        return y, tuple(torch.where(layout.real, n[0].to(o.dtype), o) for n, o in zip(carried, past, strict=False))

    order = layout.once(_order, lambda: _order(layout))
    B, T, _ = x.shape
    if not len(order.token):
        return x.new_zeros(B, T, cell.hidden_size * (2 if cell.bidirectional else 1)), past
    rows = PackedSequence(x.flatten(0, 1)[order.token], order.sizes)
    packed, carried = _call(cell, rows, tuple(old[order.row].masked_fill(order.fresh, 0.0) for old in past))
    y = packed.data.new_zeros(B * T, packed.data.shape[1]).index_copy(0, order.token, packed.data)
    ends = (new[0, order.last].to(old.dtype) for new, old in zip(carried, past, strict=False))
    return y.unflatten(0, (B, T)), tuple(torch.where(order.read, e, o) for e, o in zip(ends, past, strict=True))


def _call(cell: nn.RNNBase, x: Tensor | PackedSequence, past: Carried = ()) -> tuple[Tensor, Carried]:
    """``cell`` with what it carries as a tuple, whether that is one tensor or two."""
    hx = tuple(old[None] for old in past) or (None,)
    if isinstance(cell, nn.LSTM):
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") not in LSTM_DTYPES:
            with torch.autocast("cpu", enabled=False):  # the parameters' own precision; x is in it already
                return cell(x, hx if past else None)
        return cell(x, hx if past else None)
    y, carried = cell(x, hx[0])
    return y, (carried,)


def _lstm_dtypes() -> frozenset[torch.dtype]:
    """The dtypes in which this processor's oneDNN has an LSTM under autocast; a processor without AVX-512 has none."""
    zeros = partial(torch.zeros, dtype=torch.float32, device="cpu")
    weights = [zeros(4, 1), zeros(4, 1), zeros(4), zeros(4)]
    able = set()
    for dtype in (torch.bfloat16, torch.float16):
        with contextlib.suppress(RuntimeError), torch.no_grad(), torch.autocast("cpu", dtype):
            torch.lstm(zeros(1, 1, 1), [zeros(1, 1, 1)] * 2, weights, True, 1, 0.0, False, False, True)
            able.add(dtype)
    return frozenset(able)


LSTM_DTYPES = _lstm_dtypes()
"""The dtypes of autocast that an LSTM on the CPU takes; in another it computes in the dtype of its parameters."""


class _Order(NamedTuple):
    """The real tokens as a ``PackedSequence`` has them: first tokens of all documents, then second tokens, ...

    Longest document first; what stood in an earlier call is not part of a document here.
    """

    token: Tensor  # (N,) where each stands in the flattened rows
    sizes: Tensor  # (longest,) how many documents have a first, second, ... token; on the CPU
    row: Tensor  # (documents,) the row each stands in
    fresh: Tensor  # (documents, 1) bool, it starts here and not in an earlier call
    last: Tensor  # (B,) the document each row ends in, if any
    read: Tensor  # (B, 1) bool, the row has real tokens


def _order(layout: Layout) -> _Order:
    B, T = layout.position.shape
    token = layout.real.flatten().nonzero()[:, 0]
    row, position = token // T, layout.position.flatten()[token]
    starts = position == 0
    starts[1:] |= row[1:] != row[:-1]
    starts[:1] = True
    document = starts.cumsum(0) - 1  # (N,) counted over the whole batch
    first = starts.nonzero()[:, 0]
    index = torch.arange(len(token), device=token.device) - first[document]  # (N,) place in its document

    by_length = document.bincount().argsort(descending=True, stable=True)
    rank = by_length.argsort()  # (documents,)
    place = (index * len(first) + rank[document]).argsort()

    last = torch.full((B,), -1, device=token.device).scatter_reduce(0, row, document, "amax")
    read = (last >= 0)[:, None]
    last = rank[last.clamp_min(0)] if len(first) else last
    fresh = (position[first] == 0)[by_length, None]
    return _Order(token[place], index.bincount().cpu(), row[first][by_length], fresh, last, read)
