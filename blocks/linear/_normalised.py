"""Means of values weighted by a kernel ``phi(q).phi(k)``: attention whose sums can be kept instead of its keys.

Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Layout, State
from blocks.linear._chunked import PRODUCT, Kernel, backwards, channels, everywhere, fading

NOTHING = 1e-30
"""Weights whose sum is smaller count as none: the gradient of a division by them would not be finite in float32."""


@dataclass(frozen=True, slots=True)
class Peaked(State):
    """Sums of exponentials, each divided by the greatest of its feature."""

    s: Tensor  # (B, H, F, V + 1), the last column counts the weights
    peak: Tensor  # (B, H, F), the greatest exponent of each feature; -inf before the first token


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

    ``q`` and ``k`` are (B, T, H, K), ``v`` is (B, T, H, V), ``s`` is (B, H, F, V + 1), ``log_decay`` of the sums is
    (B, T, H, K). No weight is negative. A query that weighs nothing reads zero.
    """
    counted = F.pad(v, (0, 1), value=1.0)  # a value that is always one counts the weights
    if not causal:
        sums = everywhere(q, k, counted, layout, kernel)
    elif log_decay is None:
        sums, s = fading(q, k, counted, None, layout, s, kernel)
    else:
        sums, s = channels(q, k, counted, log_decay, layout, s)
    count = sums[..., -1:]
    return sums[..., :-1] / torch.where(count > NOTHING, count, 1.0), s


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

    What cancels is divided out, so that some weight is always one: each feature of the keys by its greatest so far
    (when a new one comes, that feature's sums fade by what it is greater), which the same feature of a query is
    multiplied by, and then all features of the query by their greatest.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    k = k if shift is None else k + shift[..., None]
    if not layout.dense:
        k = k.masked_fill(~layout.real[..., None, None], -torch.inf)
    top = k.detach()  # (B, T, H, F)

    if causal:
        before = top.new_full(top[:, 0].shape, -torch.inf) if state is None else state.peak
        peak = running_peak(top, layout, before)
        faded = (torch.cat([before[:, None], peak[:, :-1]], 1) - peak).clamp(max=0.0)
        faded = torch.where(faded.isfinite(), faded, 0.0)  # what comes first finds nothing that could fade
    else:
        ahead = running_peak(top.flip(1), backwards(layout), None).flip(1)
        peak, faded = torch.maximum(running_peak(top, layout, None), ahead), None

    seen = torch.where(peak.isfinite(), peak, 0.0)
    q = q + seen
    q = (q - q.detach().amax(-1, keepdim=True)).exp()
    k = (k - seen).exp()
    out, s = weighted_mean(q, k, v, layout, None if state is None else state.s, causal=causal, log_decay=faded)
    return out, None if s is None else Peaked(s, peak[:, -1].clone())


def peak_rounds(length: int) -> int:
    """How many operations follow one another in the greatest so far: of pairs, of pairs of pairs, ..."""
    return max(1, (length - 1).bit_length())


def running_peak(top: Tensor, layout: Layout, before: Tensor | None) -> Tensor:
    """The greatest of a document's tokens so far, by feature. (B, T, H, F)

    ``before`` (B, H, F) is that of the tokens before.
    """
    if layout.dense:
        return top.cummax(1).values
    number = (layout.position == 0).cumsum(1)[..., None, None]  # (B, T, 1, 1), of the document in its row
    if before is not None:
        top = torch.where(number == 0, torch.maximum(top, before[:, None]), top)
    step = 1
    while step < top.shape[1]:  # each looks twice as far back as the one before
        same = number[:, step:] == number[:, :-step]
        earlier = torch.where(same, top[:, :-step], -torch.inf)
        top = torch.cat([top[:, :step], torch.maximum(top[:, step:], earlier)], 1)
        step *= 2
    return top
