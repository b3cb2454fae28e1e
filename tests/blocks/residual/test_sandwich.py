"""Sandwich: x + norm(f(norm(x))), with two norms that learn apart."""

from functools import partial

import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.sandwich import Sandwich


def test_matches_the_formula():
    residual = Sandwich(8, Site(causal=True, max_length=8), norm=partial(LayerNorm, eps=0.1))
    residual.norm_after.weight.data.fill_(3.0)
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    norm = LayerNorm(8, eps=0.1)
    assert_close(residual.read(x), norm(x))
    assert_close(residual.write(x, y), x + 3.0 * norm(y))
    assert residual.final_norm
