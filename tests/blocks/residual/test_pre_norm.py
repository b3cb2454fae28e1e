"""Pre-norm: x + f(norm(x))."""

from functools import partial

import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.pre_norm import PreNorm

SITE = Site(causal=True, max_length=8)


def test_matches_the_formula():
    residual = PreNorm(8, SITE, norm=partial(LayerNorm, eps=0.1))
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert_close(residual.read(x), LayerNorm(8, eps=0.1)(x))
    assert_close(residual.write(x, y), x + y)
    assert residual.final_norm


def test_dropout_drops_what_the_sublayer_says_and_never_the_stream():
    residual = PreNorm(8, SITE, norm=LayerNorm, dropout=0.5)
    x, y = torch.zeros(50, 50, 8), torch.ones(50, 50, 8)
    assert set(residual.write(x, y).unique().tolist()) == {0.0, 2.0}
    assert_close(residual.eval().write(x, y), y)
