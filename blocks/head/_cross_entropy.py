"""The cross-entropy of a table's scores, a few tokens at a time, so that the logits of all never exist at once.

Each piece's gradient is made beside its loss, while its logits are at hand: nothing is kept or computed
again for the backward, which has only to scale.

Wijmans et al. 2024, https://arxiv.org/abs/2411.09009 (why the logits are the largest tensor of a training step)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from blocks.contracts import IGNORE
from blocks.projection import project

LOGITS = 1 << 22
"""How many logits are held at once, nearly: few enough for a cache, many enough for a fast product."""

FEWEST = 512
"""Tokens in a piece, at least: with fewer, adding up the table's gradient takes longer than making it."""


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of ``softmax(x weight^T + bias)`` at the targets that are asked for.

    Args:
        x: What is scored. (..., D)
        weight: A row for each class. (V, D)
        bias: A number for each class, or None. (V,)
        targets: The right classes, or ``IGNORE``. (...)
    """
    x, targets = asked(x, targets)
    if not torch.is_grad_enabled():
        x, weight, bias = x.detach(), weight.detach(), None if bias is None else bias.detach()
    return _LinearCrossEntropy.apply(x, weight, bias, targets)


def scored_cross_entropy(score: Callable[[Tensor], Tensor], x: Tensor, targets: Tensor, n_classes: int) -> Tensor:
    """The same for any way to score: (N, D) -> (N, V). Where there are many tokens, scores are computed twice."""
    x, targets = asked(x, targets)

    def piece(x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(_precise(score(x)), targets, reduction="sum")

    size = _piece(n_classes)
    if len(x) <= size:
        total = piece(x, targets)
    else:
        pairs = zip(x.split(size), targets.split(size), strict=True)
        total = torch.stack([checkpoint(piece, *pair, use_reentrant=False) for pair in pairs]).sum()
    return total / max(len(x), 1)


def asked(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens and targets that are asked for, in one row. (N, D), (N,)"""
    x, targets = x.flatten(0, -2), targets.flatten()
    rows = (targets != IGNORE).nonzero().squeeze(1)  # a device waits here once; masked objectives ask for few
    return (x, targets) if len(rows) == len(targets) else (x[rows], targets[rows])


def _piece(n_classes: int) -> int:
    return max(FEWEST, LOGITS // n_classes)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        precise = torch.promote_types(dtype, torch.float32)
        table, size, learns = weight.to(dtype), _piece(len(weight)), any(ctx.needs_input_grad)

        total = x.new_zeros((), dtype=precise)
        grad_x = torch.empty_like(x) if learns else None
        grad_weight = torch.zeros_like(weight, dtype=precise)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=precise)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), size):
                part, right = x[start : start + size].to(dtype), targets[start : start + size, None]
                logits = project(part, table, None if bias is None else bias.to(dtype))  # (N, V)
                log_p = F.log_softmax(logits, dim=-1, dtype=precise)
                total -= log_p.gather(1, right).sum()
                if grad_x is None:
                    continue
                wrong = log_p.exp_().scatter_add_(1, right, log_p.new_full((), -1.0).expand_as(right))
                if grad_bias is not None:
                    grad_bias += wrong.sum(0)
                wrong = wrong.to(dtype)
                grad_x[start : start + size] = project(wrong, table.T)
                grad_weight += wrong.T @ part

        ctx.count = max(len(targets), 1)
        if grad_x is not None:
            grad_bias = None if bias is None or grad_bias is None else grad_bias.to(bias.dtype)
            ctx.save_for_backward(grad_x, grad_weight.to(weight.dtype), grad_bias)
        return total / ctx.count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(g if g is None else (g * grad.to(g.dtype)).div_(ctx.count) for g in ctx.saved_tensors), None
