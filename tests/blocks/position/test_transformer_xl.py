"""Transformer-XL's scores against the four terms of the paper, pair by pair."""

import math
from functools import partial

import pytest
import torch

from blocks.contracts import Layout
from blocks.position.transformer_xl import TransformerXL


def sinusoids(distance, waves, base):
    frequencies = [base ** (-2 * i / waves) for i in range(waves // 2)]
    values = [math.sin(distance * f) for f in frequencies] + [math.cos(distance * f) for f in frequencies]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("waves", [None, 20])
def test_scores_are_the_four_published_terms(waves):
    """q k + u k + q W r(i - j) + v W r(i - j), of which the first is attention's own."""
    B, T, H, G, K = 2, 6, 4, 2, 8
    xl, layout = TransformerXL(H, K, base=500.0, waves=waves).double(), Layout.full(B, T)
    with torch.no_grad():
        xl.u.normal_()
        xl.v.normal_()
    q, k = torch.randn(B, T, H, K, dtype=torch.float64), torch.randn(B, T, G, K, dtype=torch.float64)
    bias = xl.bias(q, k, layout, layout)
    for b in range(B):
        for h in range(H):
            for i in range(T):
                for j in range(T):
                    r = xl.to_r[h] @ sinusoids(i - j, waves or K, 500.0)
                    score = xl.u[h] @ k[b, j, h // 2] + q[b, i, h] @ r + xl.v[h] @ r
                    assert bias[b, h, i, j].item() == pytest.approx(score.item() / K**0.5)


def test_layers_of_one_forward_share_the_waves():
    xl, layout, q = TransformerXL(2, 8), Layout.full(1, 5).fresh(), torch.randn(1, 5, 2, 8)
    xl.bias(q, q, layout, layout)
    (waves,) = layout.scratch.kept.values()
    assert waves.shape == (1, 5, 8)


def test_an_odd_head_gets_a_wave_more():
    assert TransformerXL(2, 5).to_r.shape == (2, 5, 6)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(TransformerXL, 1, 8, waves=7), r"waves must be even, a sine and a cosine each, but got 7\."),
        (partial(TransformerXL, 1, 8, base=1.0), r"base must be above 1, but got 1\.0\."),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()
