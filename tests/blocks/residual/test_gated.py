"""The highway: (1 - g) x + g f(norm(x))."""

from functools import partial

import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.gated import GatedResidual

SITE = Site(causal=True, max_length=8)


def test_matches_the_formula():
    residual = GatedResidual(8, SITE, norm=partial(LayerNorm, eps=0.1), start=-1.0)
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    gate = 1 / (1 + (-(x @ residual.to_gate.weight.T) + 1.0).exp())
    assert_close(residual.read(x), LayerNorm(8, eps=0.1)(x))
    assert_close(residual.write(x, y), (1 - gate) * x + gate * y)
    assert residual.final_norm


def test_a_shut_gate_carries_the_stream_on_and_an_open_one_replaces_it():
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert_close(GatedResidual(8, SITE, norm=LayerNorm, start=-50.0).write(x, y), x)
    assert_close(GatedResidual(8, SITE, norm=LayerNorm, start=50.0).write(x, y), y)
