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
        q, k, v = _by_head(q), _by_head(k), _by_head(v)  # (BH, T, K)
        hidden = q.new_full((SIZE, SIZE), float("-inf")).triu(1)
        outputs, weights = [], []
        for strip in _strips(q.shape[1]):
            n = strip.stop - strip.start
            scores = torch.bmm(q[:, strip], k[:, : strip.stop].transpose(1, 2)).mul_(scale)
            scores[:, :, strip] += hidden[:n, :n]  # earlier keys are seen by the whole strip
            weights.append(scores.softmax(dim=-1))
            outputs.append(torch.bmm(weights[-1], v[:, : strip.stop]))
        ctx.save_for_backward(q, k, v, *weights)
        ctx.rows, ctx.scale = rows, scale
        return _by_token(outputs, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        grad, strips = _by_head(grad), _strips(q.shape[1])
        dq = []
        dk, dv = ([t.new_zeros(len(t), s.stop - s.start, t.shape[2]) for s in strips] for t in (k, v))
        for i, (strip, p) in enumerate(zip(strips, weights, strict=True)):
            dp = torch.bmm(grad[:, strip], v[:, : strip.stop].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype).mul_(ctx.scale)
            dq.append(torch.bmm(ds, k[:, : strip.stop]))
            for j, seen in enumerate(strips[: i + 1]):  # into whole tensors: a slice's products are slow
                dv[j].baddbmm_(p[:, :, seen].transpose(1, 2), grad[:, strip])
                dk[j].baddbmm_(ds[:, :, seen].transpose(1, 2), q[:, strip])
        return _by_token(dq, ctx.rows), _by_token(dk, ctx.rows), _by_token(dv, ctx.rows), None


def _strips(length: int) -> list[slice]:
    return [slice(start, min(start + SIZE, length)) for start in range(0, length, SIZE)]


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H, K) -> (BH, T, K), contiguous"""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _by_token(strips: list[Tensor], rows: int) -> Tensor:
    """(BH, size, K) each -> (B, T, H, K)"""
    return torch.cat([x.unflatten(0, (rows, -1)).transpose(1, 2) for x in strips], dim=1)
