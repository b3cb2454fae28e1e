"""Layer scale: x + w f(norm(x)), a weight for each feature."""

from functools import partial

import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.layer_scale import LayerScale


def test_matches_the_formula():
    residual = LayerScale(8, Site(causal=True, max_length=8), norm=partial(LayerNorm, eps=0.1), start=0.25)
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert_close(residual.read(x), LayerNorm(8, eps=0.1)(x))
    assert_close(residual.write(x, y), x + 0.25 * y)
    residual.weight.data = torch.arange(8.0)
    assert_close(residual.write(x, y)[..., 5], x[..., 5] + 5.0 * y[..., 5])
    assert residual.final_norm
