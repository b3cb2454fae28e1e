"""What the tests of positions share: an attention small enough to be read, and rows of every kind."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blocks.contracts import AttentionPosition, Layout, Mask


def naive(
    position: AttentionPosition, q: Tensor, k: Tensor, v: Tensor, layout: Layout, causal: bool, start: int = 0
) -> Tensor:
    """Softmax attention of the queries from ``start`` on over all keys. (B, T, H, K), (B, S, G, K) twice"""
    queries = layout if start == 0 else layout.slice(start, layout.position.shape[1])
    q, k = position.rotate(q[:, start:], queries, "query"), position.rotate(k, layout, "key")
    repeats = q.shape[2] // k.shape[2]
    keys, values = (t.repeat_interleave(repeats, dim=2) for t in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, keys) / q.shape[-1] ** 0.5
    bias = position.bias(q, k, queries, layout)
    if bias is not None:
        assert bias.shape[0] in (1, len(q))
        assert bias.shape[1:] == scores.shape[1:]
        assert bias.isfinite().all()
        scores = scores + bias.to(scores.dtype)
    allowed = Mask(causal)(queries, layout)[:, None]
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1) * allowed.any(
        -1, keepdim=True
    )
    out = torch.einsum("bhts,bshk->bthk", weights, values)
    extra = position.value_bias(weights, queries, layout)
    return out if extra is None else out + extra


@pytest.fixture
def attend() -> Callable[..., Tensor]:
    return naive
