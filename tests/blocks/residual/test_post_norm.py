"""Post-norm: norm(x + f(x))."""

from functools import partial

import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.post_norm import PostNorm


def test_matches_the_formula():
    residual = PostNorm(8, Site(causal=True, max_length=8), norm=partial(LayerNorm, eps=0.1))
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert residual.read(x) is x
    assert_close(residual.write(x, y), LayerNorm(8, eps=0.1)(x + y))
    assert not residual.final_norm
