"""Means of values weighted by a kernel ``phi(q).phi(k)``: attention whose sums can be kept instead of its keys.

Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Layout, State
from blocks.linear._chunked import PRODUCT, Kernel, backwards, everywhere, fading

EPS = 1e-6
"""Added to the sum of the weights, so that a query that weighs nothing reads zero."""


@dataclass(frozen=True, slots=True)
class Peaked(State):
    """Sums of exponentials, each divided by the greatest of its row and head."""

    s: Tensor  # (B, H, F, V + 1), the last column counts the weights
    peak: Tensor  # (B, H), the greatest exponent; -inf before the first token


def weighted_mean(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    s: Tensor | None,
    *,
    causal: bool,
    log_decay: Tensor | None = None,
    kernel: Kernel = PRODUCT,
) -> tuple[Tensor, Tensor | None]:
    """``sum_s kernel(q_t, k_s) v_s / sum_s kernel(q_t, k_s)`` over the past, or over the whole document.

    ``q`` and ``k`` are (B, T, H, K), ``v`` is (B, T, H, V), ``s`` is (B, H, F, V + 1). No weight is negative.
    """
    counted = F.pad(v, (0, 1), value=1.0)  # a value that is always one counts the weights
    if causal:
        sums, s = fading(q, k, counted, log_decay, layout, s, kernel)
    else:
        sums = everywhere(q, k, counted, layout, kernel)
    return sums[..., :-1] / (sums[..., -1:] + EPS), s


def exponential_mean(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    state: Peaked | None,
    *,
    causal: bool,
    shift: Tensor | None = None,
) -> tuple[Tensor, Peaked | None]:
    """The same for the features ``exp(q)`` and ``exp(k + shift)``, which may be greater than any number.

    ``shift`` (B, T, H) is a key's own, alike for all its features; None: 0.

    A common factor cancels: a query's features are divided by their greatest, the keys' by the greatest so far. When
    a new one comes, the sums fade by what it is greater.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    q = (q - q.detach().amax(-1, keepdim=True)).exp()
    shift = torch.zeros_like(k[..., 0]) if shift is None else shift
    if not layout.dense:
        shift = shift.masked_fill(~layout.real[..., None], -torch.inf)
    top = k.detach().amax(-1) + shift.detach()  # (B, T, H)

    if causal:
        before = top.new_full(top[:, 0].shape, -torch.inf) if state is None else state.peak
        peak = running_peak(top, layout, before)
        faded = (torch.cat([before[:, None], peak[:, :-1]], 1) - peak).clamp(max=0.0)
        faded = torch.where(faded.isfinite(), faded, 0.0)  # what comes first finds nothing that could fade
    else:
        ahead = running_peak(top.flip(1), backwards(layout), None).flip(1)
        peak, faded = torch.maximum(running_peak(top, layout, None), ahead), None

    k = (k + (shift - torch.where(peak.isfinite(), peak, 0.0))[..., None]).exp()
    out, s = weighted_mean(q, k, v, layout, None if state is None else state.s, causal=causal, log_decay=faded)
    return out, None if s is None else Peaked(s, peak[:, -1].clone())


def peak_rounds(length: int) -> int:
    """How many operations follow one another in the greatest so far: of pairs, of pairs of pairs, ..."""
    return max(1, (length - 1).bit_length())


def running_peak(top: Tensor, layout: Layout, before: Tensor | None) -> Tensor:
    """The greatest of a document's tokens so far; ``before`` (B, H) is that of the tokens before. (B, T, H)"""
    if layout.dense:
        return top.cummax(1).values
    number = (layout.position == 0).cumsum(1)[..., None]  # (B, T, 1), of the document in its row
    if before is not None:
        top = torch.where(number == 0, torch.maximum(top, before[:, None]), top)
    step = 1
    while step < top.shape[1]:  # each looks twice as far back as the one before
        same = number[:, step:] == number[:, :-step]
        earlier = torch.where(same, top[:, :-step], -torch.inf)
        top = torch.cat([top[:, :step], torch.maximum(top[:, step:], earlier)], 1)
        step *= 2
    return top
