"""Laws of how attention weighs keys: scores and normalisers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from blocks.contracts import Normaliser, Score
from blocks.laws.trying import EXACT, B, T, agree, draw, hold, unreached

H, K = 4, 16
"""Heads, and channels of a head; the facts that a score or a normaliser is tried with."""

S = 11
"""Keys."""


@torch.no_grad()
def weighs_only_what_is_allowed(normaliser: Normaliser) -> None:
    """A hidden key weighs exactly nothing, and might as well not be there."""
    scores, allowed = 3.0 * draw(normaliser, B, H, T, S), _allowed(normaliser)
    weights = normaliser(scores, allowed)
    same = weights.shape == scores.shape and weights.dtype == scores.dtype
    hold(same, "weights must have the shape and the dtype of the scores, but do not.")
    hold(weights.isfinite().all(), "every weight must be finite, but some are not.")
    hidden = weights[~allowed.expand_as(weights)]
    hold(not hidden.any(), f"a hidden key must weigh exactly 0, but weighs up to {hidden.abs().max():.2e}.")
    loud = torch.where(allowed, scores, 50.0)
    agree(normaliser(loud, allowed), weights, "weights beside hidden keys with other scores")
    few = allowed[:, :, :1].expand(-1, -1, T, -1)  # the same keys for all queries, so that the others can be cut out
    for row in range(B):
        seen = few[row, 0, 0]
        alone = normaliser(scores[row : row + 1, ..., seen], None)
        agree(normaliser(scores, few)[row : row + 1, ..., seen], alone, "weights with hidden keys and without them")


@torch.no_grad()
def weighs_each_query_alone(normaliser: Normaliser) -> None:
    """Neither another query, nor the order of the keys, changes what a key weighs."""
    scores, allowed = 3.0 * draw(normaliser, B, H, T, S), _allowed(normaliser)
    weights = normaliser(scores, allowed)
    part = normaliser(scores[:, :, 2:5], allowed[:, :, 2:5])
    agree(part, weights[:, :, 2:5], "weights of some queries alone and among others")
    agree(normaliser(scores.flip(-1), allowed.flip(-1)).flip(-1), weights, "weights of keys in another order")


@torch.no_grad()
def adds_up_as_declared(normaliser: Normaliser) -> None:
    """The weights of a row are shares that add up to what ``total`` declares, for small and for large scores."""
    for size in (0.0, 1.0, 30.0, 1e4):
        weights = normaliser(size * draw(normaliser, B, H, T, S), _allowed(normaliser))
        hold(weights.isfinite().all(), f"weights must be finite for scores of {size:g}, but are not.")
        if normaliser.total == "any":
            continue
        hold((weights >= 0).all(), f"no weight must be negative, but one is {weights.min():.2e}.")
        least, most = weights.sum(-1).min().item(), weights.sum(-1).max().item()
        rows = f"for scores of {size:g}, but rows add up to {least:.6g} to {most:.6g}"
        hold(normaliser.total != "one" or least >= 1 - EXACT, f"the weights of a row must add up to 1 {rows}.")
        hold(most <= 1 + EXACT, f"the weights of a row must add up to at most 1 {rows}.")


def learns_from_scores(normaliser: Normaliser) -> None:
    """Scores and parameters get finite gradients; the score of a hidden key gets none."""
    scores, allowed = (3.0 * draw(normaliser, B, H, T, S)).requires_grad_(), _allowed(normaliser)
    weights = normaliser(scores, allowed)
    (weights * draw(normaliser, *weights.shape, seed=1)).sum().backward()
    got = scores.grad
    hold(got is not None and got.any() and got.isfinite().all(), "scores must get a finite gradient, but do not.")
    hidden = got is not None and got[~allowed.expand_as(got)].any()
    hold(not hidden, "the score of a hidden key must get no gradient, but gets one.")
    _reached(normaliser)


def _allowed(block: nn.Module) -> Tensor:
    """Some keys of each query, at least one. (B, 1, T, S)"""
    allowed = draw(block, B, 1, T, S, seed=3) > 0
    allowed[..., 0] = True
    return allowed


@torch.no_grad()
def prepares_each_token_alone(score: Score) -> None:
    """Queries and keys keep shape and dtype, and neither another token nor another row changes one."""
    x = draw(score, B, T, H, K)
    for role in ("query", "key"):
        y = _prepared(score, x, role)
        hold(y.shape == x.shape and y.dtype == x.dtype, f"a {role} must keep its shape and dtype, but does not.")
        hold(y.isfinite().all(), f"every {role} must be finite, but some are not.")
        agree(_prepared(score, x[1:, 3:5], role), y[1:, 3:5], f"a {role} alone and among others")
    hold(isinstance(score.scale, float) and 0 < score.scale < float("inf"), f"scale must be positive: {score.scale}.")
    hold(score.cap is None or score.cap > 0, f"cap must be None or positive, but is {score.cap}.")


@torch.no_grad()
def rotates_once(score: Score) -> None:
    """What the position does to queries and keys reaches the score: it is called once, and its result is used."""
    x = draw(score, B, T, H, K)
    for role in ("query", "key"):
        calls: list[Tensor] = []

        def turn(one: Tensor, calls: list[Tensor] = calls) -> Tensor:
            calls.append(one)
            return torch.cat([-one[..., K // 2 :], one[..., : K // 2]], dim=-1)

        y = score.prepare(x, role, turn)
        hold(len(calls) == 1, f"a {role} must be rotated once, but is {len(calls)} times.")
        off = (y - _prepared(score, x, role)).abs().max().item()
        hold(off > EXACT, f"the rotation of a {role} must change the score, but the {role} is the same without it.")


def scores_with_every_parameter(score: Score) -> None:
    """Queries, keys and every parameter get a finite gradient."""
    q, k = draw(score, B, T, H, K).requires_grad_(), draw(score, B, S, H, K, seed=1).requires_grad_()
    scores = torch.einsum("bthk,bshk->bhts", _prepared(score, q, "query"), _prepared(score, k, "key")) * score.scale
    if score.cap is not None:
        scores = score.cap * torch.tanh(scores / score.cap)
    (scores * draw(score, *scores.shape, seed=2)).sum().backward()
    for name, x in (("queries", q), ("keys", k)):
        good = x.grad is not None and x.grad.any() and x.grad.isfinite().all()
        hold(good, f"{name} must get a finite gradient, but do not.")
    _reached(score)


def _prepared(score: Score, x: Tensor, role: Literal["query", "key"] | str) -> Tensor:
    return score.prepare(x, role, lambda one: one)  # type: ignore[arg-type]


def _reached(block: nn.Module) -> None:
    idle = [name for name, p in block.named_parameters() if p.requires_grad and unreached(p)]
    block.zero_grad(set_to_none=True)
    hold(not idle, f"every parameter must get a gradient, but these get none: {', '.join(idle)}.")
