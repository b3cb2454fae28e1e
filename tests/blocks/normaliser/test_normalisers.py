"""Normalisers against their formulas, row by row, and what all of them do with hidden keys."""

import functools
import math

import pytest
import torch
from torch.testing import assert_close

from blocks.normaliser.relu2 import SquaredRelu
from blocks.normaliser.sigmoid import Sigmoid
from blocks.normaliser.sink import Sink
from blocks.normaliser.softmax import Softmax
from blocks.normaliser.top_k import TopK

B, H, T, S = 2, 3, 4, 6


def top(k, s):
    kept = s.topk(min(k, len(s))).values[-1]
    return torch.where(s >= kept, s, -math.inf).softmax(0)


def sinking(s):
    return s.exp() / (s.exp().sum() + 1)  # the sink's score starts at 0


FORMULAS = {
    "softmax": (Softmax, lambda s: s.exp() / s.exp().sum()),
    "sigmoid": (Sigmoid, lambda s: 1 / (1 + len(s) * (-s).exp())),
    "relu2": (SquaredRelu, lambda s: s.clamp(min=0) ** 2 / len(s)),
    "top_k": (functools.partial(TopK, k=2), functools.partial(top, 2)),
    "top_k, some rows seeing fewer": (functools.partial(TopK, k=5), functools.partial(top, 5)),
    "sink": (Sink, sinking),
    "sink that does not learn": (functools.partial(Sink, learned=False), sinking),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("hides", [True, False])
def test_each_row_follows_the_formula(name, hides):
    """Over the keys in sight; hidden ones get exactly nothing, and no gradient."""
    make, formula = FORMULAS[name]
    scores = torch.randn(B, H, T, S, dtype=torch.float64, requires_grad=True)
    allowed = torch.rand(B, 1, T, S) < 0.6
    allowed[..., 0] = True
    weights = make(H).double()(scores, allowed if hides else None)
    for b in range(B):
        for t in range(T):
            seen = allowed[b, 0, t] if hides else torch.ones(S, dtype=torch.bool)
            for h in range(H):
                assert_close(weights[b, h, t, seen], formula(scores[b, h, t, seen]))
    if hides:
        hidden = ~allowed.expand_as(weights)
        assert not weights[hidden].any()
        gradient = torch.autograd.grad(weights.square().sum(), scores)[0]
        assert gradient.isfinite().all()
        assert not gradient[hidden].any()


def test_only_the_softmax_is_plain():
    plain = {name: make(H).plain for name, (make, _) in FORMULAS.items()}
    assert [name for name, yes in plain.items() if yes] == ["softmax"]


def test_each_head_learns_a_sink_of_its_own():
    sink = Sink(H).double()
    with torch.no_grad():
        sink.sink.copy_(torch.tensor([-50.0, 0.0, 50.0]))
    given = sink(torch.zeros(1, H, 1, 4, dtype=torch.float64), None).sum(-1).flatten()
    assert_close(given, torch.tensor([1.0, 0.8, 0.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_fewer_keys_than_k_are_all_read():
    scores = torch.randn(B, H, T, 3)
    assert_close(TopK(H, k=16)(scores, None), scores.softmax(-1))


def test_keys_that_tie_are_all_read():
    weights = TopK(H, k=2)(torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(1, H, 1, 4), None)
    assert_close(weights[0, 0, 0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]))


@pytest.mark.parametrize("name", FORMULAS)
def test_bfloat16_stays(name):
    scores = torch.randn(B, H, T, S).bfloat16()
    assert FORMULAS[name][0](H).bfloat16()(scores, None).dtype == torch.bfloat16


def test_top_k_refuses_none():
    with pytest.raises(ValueError, match=r"^k must be at least 1, but got 0\.$"):
        TopK(H, k=0)
