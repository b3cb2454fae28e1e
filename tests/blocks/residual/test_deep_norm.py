"""DeepNorm: norm(a x + f(x)), with the constants of the paper's table for every shape of model."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.deep_norm import DeepNorm


def _residual(**site):
    return DeepNorm(8, Site(**{"causal": True, "max_length": 8, **site}), norm=partial(LayerNorm, eps=0.1))


@pytest.mark.parametrize(
    ("site", "strength", "gain"),
    [
        ({"causal": False, "encoder_layers": 18}, (2 * 18) ** 0.25, (8 * 18) ** -0.25),
        ({"decoder_layers": 6}, (2 * 6) ** 0.25, (8 * 6) ** -0.25),
        (
            {"causal": False, "encoder_layers": 18, "decoder_layers": 6},
            0.81 * (18**4 * 6) ** (1 / 16),
            0.87 * (18**4 * 6) ** (-1 / 16),
        ),
        ({"reads_memory": True, "encoder_layers": 18, "decoder_layers": 6}, (3 * 6) ** 0.25, (12 * 6) ** -0.25),
        ({"n_layers": 5}, 10**0.25, 40**-0.25),
    ],
    ids=["encoder", "decoder", "encoder of both", "decoder of both", "a stack alone"],
)
def test_constants_follow_the_depth_of_the_whole_model(site, strength, gain):
    residual = _residual(**site)
    assert residual.strength == pytest.approx(strength)
    assert residual.gain == pytest.approx(gain)


def test_matches_the_formula():
    residual, x, y = _residual(decoder_layers=8), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert residual.read(x) is x
    assert_close(residual.write(x, y), LayerNorm(8, eps=0.1)(2.0 * x + y))
    assert not residual.final_norm
