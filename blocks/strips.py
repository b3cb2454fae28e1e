"""Causal softmax attention of short rows on a CPU: strips of queries, each with the keys up to its end.

Plain matrix products reach a CPU's peak where a fused kernel does not, and a strip leaves out what the mask hides
behind it. The weights are kept for the backward, which is why it is for short rows only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SIZE = 64
"""Queries in a strip."""


class CausalStrips(torch.autograd.Function):
    """(B, T, H, K), (B, T, H, K), (B, T, H, K') -> (B, T, H, K'), every row one whole document."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        rows = q.shape[0]
        q, k, v = _by_head(q) * scale, _by_head(k), _by_head(v)  # (BH, T, K)
        out, weights = torch.empty_like(v), []
        for strip in _strips(q.shape[1]):
            n = strip.stop - strip.start
            hidden = q.new_full((n, n), float("-inf")).triu(1)
            scores = torch.bmm(q[:, strip], k[:, : strip.stop].transpose(1, 2))
            scores[:, :, strip] += hidden  # earlier keys are seen by the whole strip
            weights.append(scores.softmax(dim=-1))
            out[:, strip] = torch.bmm(weights[-1], v[:, : strip.stop])
        ctx.save_for_backward(q, k, v, *weights)
        ctx.rows, ctx.scale = rows, scale
        return _by_token(out, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        grad = _by_head(grad)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for strip, p in zip(_strips(q.shape[1]), weights, strict=True):
            seen = slice(0, strip.stop)
            dv[:, seen].baddbmm_(p.transpose(1, 2), grad[:, strip])
            dp = torch.bmm(grad[:, strip], v[:, seen].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dq[:, strip] = torch.bmm(ds, k[:, seen])
            dk[:, seen].baddbmm_(ds.transpose(1, 2), q[:, strip])
        dq *= ctx.scale  # the keys' gradient has it from the queries
        return _by_token(dq, ctx.rows), _by_token(dk, ctx.rows), _by_token(dv, ctx.rows), None


def _strips(length: int) -> list[slice]:
    return [slice(start, min(start + SIZE, length)) for start in range(0, length, SIZE)]


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H, K) -> (BH, T, K), contiguous"""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _by_token(x: Tensor, rows: int) -> Tensor:
    """(BH, T, K) -> (B, T, H, K)"""
    return x.unflatten(0, (rows, -1)).transpose(1, 2)
