"""Sinusoidal position against the formula number by number, and at the precision it is used in."""

import math

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import PAD, Layout
from blocks.position.sinusoidal import Sinusoidal


def test_adds_the_published_waves(device):
    position = torch.tensor([[0, 1, 7], [3, 100, 2]], device=device)
    x = torch.randn(2, 3, 6, device=device)
    added = Sinusoidal(6, 128, scale=1.0).embed(x, Layout(position, torch.zeros_like(position))) - x
    for row in range(2):
        for t in range(3):
            for i in range(3):
                angle = position[row, t].item() / 10_000 ** (2 * i / 6)
                assert added[row, t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
                assert added[row, t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_row_that_is_known_to_be_whole_gets_the_same():
    x, layout = torch.randn(3, 7, 8), Layout.full(3, 7)
    sinusoidal = Sinusoidal(8, 16, scale=1.0)
    assert_close(sinusoidal.embed(x, layout), sinusoidal.embed(x, layout._replace(dense=False)))


def test_base_and_scale_are_heard():
    x, layout = torch.zeros(1, 2, 4, dtype=torch.float64), Layout.full(1, 2)
    added = Sinusoidal(4, 16, base=100.0, scale=0.5).embed(x, layout)
    expected = [0.5 * f(1 / 100 ** (i / 4)) for i in (0, 2) for f in (math.sin, math.cos)]
    assert_close(added[0, 1], torch.tensor(expected, dtype=torch.float64))


def test_angles_stay_exact_in_half_precision():
    x, layout = torch.zeros(1, 1, 8), Layout(torch.tensor([[4095]]), torch.tensor([[0]]))
    half = Sinusoidal(8, 16, scale=1.0).to(torch.bfloat16).embed(x.bfloat16(), layout)
    assert half.dtype == torch.bfloat16
    assert_close(half.double(), Sinusoidal(8, 16, scale=1.0).embed(x.double(), layout), atol=0.01, rtol=0)


def test_padding_stays_finite():
    layout = Layout(torch.tensor([[0, PAD]]), torch.tensor([[0, PAD]]))
    assert Sinusoidal(4, 16).embed(torch.zeros(1, 2, 4), layout).isfinite().all()


def test_refuses_an_odd_width():
    with pytest.raises(ValueError, match=r"^d_model must be even for pairs of sines and cosines, but got 5\.$"):
        Sinusoidal(5, 16)


def test_refuses_a_base_that_turns_nothing():
    with pytest.raises(ValueError, match=r"^base must be above 1, but got 1\.0\.$"):
        Sinusoidal(4, 16, base=1.0)
