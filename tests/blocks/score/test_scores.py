"""Scores against their formulas, and the order of norm and rotation."""

import functools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from blocks.score.cosine import CosineScore
from blocks.score.dot import DotScore

B, T, H, K = 2, 5, 3, 4


def draw():
    return torch.randn(B, T, H, K, dtype=torch.float64)


class Unit(nn.Module):
    """A norm that can be told from others: to length one, then by a learned scale."""

    families = ("norm",)

    def __init__(self, d_model, /):
        super().__init__()
        self.weight = nn.Parameter(torch.full((d_model,), 2.0))

    def forward(self, x):
        return nn.functional.normalize(x, dim=-1) * self.weight


def shift(x):
    """Stands for a rotation; unlike one, it does not commute with a norm."""
    return x + 1


def test_a_dot_product_is_scaled_or_not():
    assert DotScore(H, K, scale=1.0).scale == 1.0
    assert DotScore(H, K).scale == 0.5
    assert DotScore(H, K, divisor="width").scale == 0.25


def test_without_a_norm_only_the_position_acts():
    x = draw()
    assert torch.equal(DotScore(H, K).prepare(x, "query", shift), x + 1)


@pytest.mark.parametrize("role", ["query", "key"])
def test_the_norm_acts_before_or_after_the_rotation(role):
    x = draw()
    first = DotScore(H, K, qk_norm=Unit).double()
    after = DotScore(H, K, qk_norm=Unit, order="rotate_first").double()
    unit = x / x.norm(dim=-1, keepdim=True)
    assert_close(first.prepare(x, role, shift), 2 * unit + 1)
    assert_close(after.prepare(x, role, shift), 2 * (x + 1) / (x + 1).norm(dim=-1, keepdim=True))


def test_queries_and_keys_have_norms_of_their_own():
    score = DotScore(H, K, qk_norm=Unit).double()
    with torch.no_grad():
        score.norm_k.weight.fill_(5.0)
    x = draw()
    assert_close(score.prepare(x, "key", lambda t: t), 2.5 * score.prepare(x, "query", lambda t: t))


def test_a_cosine_is_between_minus_and_plus_its_factor():
    score = CosineScore(H, K, start=7.0).double()
    q, k = draw(), draw()
    made = (score.prepare(q, "query", lambda t: t) * score.prepare(k, "key", lambda t: t)).sum(-1) * score.scale
    assert_close(made, 7 * nn.functional.cosine_similarity(q, k, dim=-1), atol=1e-6, rtol=1e-6)


def test_each_head_learns_a_factor_of_its_own():
    score = CosineScore(H, K).double()
    score.prepare(draw(), "query", lambda t: t)[:, :, 1].sum().backward()
    assert score.log_factor.grad[:, 0].ne(0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (functools.partial(DotScore, H, K, scale=0.0), "scale must be positive, but got 0.0."),
        (functools.partial(DotScore, H, K, cap=-1.0), "cap must be positive, but got -1.0."),
        (
            functools.partial(DotScore, H, K, order="rotate_first"),
            "order must be 'norm_first' where qk_norm is null and there is no order, but got 'rotate_first'.",
        ),
        (functools.partial(CosineScore, H, K, start=0.0), "start must be positive, but got 0.0."),
    ],
)
def test_it_refuses(make, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        make()
    assert str(refusal.value) == message
