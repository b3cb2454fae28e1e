"""FIRE against its formula pair by pair."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.position.fire import Fire


def test_is_the_published_function_of_the_share_of_what_was_seen():
    fire = Fire(2, 8, hidden=5, length=6.0, rate=0.3).double()
    with torch.no_grad():
        fire.stretch.fill_(0.75)
    layout, q = Layout.full(2, 9), torch.randn(2, 9, 2, 8, dtype=torch.float64)
    bias = fire.bias(q, q, layout, layout)
    c, L = fire.rate.item(), 0.75 * 6
    for i in range(9):
        for j in range(9):
            share = math.log(1 + c * abs(i - j)) / math.log(1 + c * max(L, i, j)) * (1 if j <= i else -1)
            hidden = [max(w * share + b, 0.0) for w, b in zip(fire.weight.tolist(), fire.offset.tolist(), strict=True)]
            for head in range(2):
                expected = sum(u * h for u, h in zip(fire.to_heads[head].tolist(), hidden, strict=True))
                assert bias[0, head, i, j].item() == pytest.approx(expected)


def test_up_to_its_length_only_distances_count():
    fire, q = Fire(2, 8, length=100.0).double(), torch.randn(1, 8, 2, 8).double()
    biases = []
    for start in (0, 50, 200):
        layout = Layout(torch.arange(start, start + 8)[None], torch.zeros(1, 8, dtype=torch.long))
        biases.append(fire.bias(q, q, layout, layout))
    assert_close(biases[0], biases[1])
    assert (biases[0] - biases[2]).abs().max() > 1e-4


def test_beyond_its_length_the_first_key_is_always_at_one():
    fire = Fire(1, 8, length=10.0)
    here = Layout(torch.tensor([[50, 5000]]), torch.zeros(1, 2, dtype=torch.long))
    first = Layout(torch.tensor([[0]]), torch.tensor([[0]]))
    assert_close(fire.share(here, first, torch.float32), torch.ones(1, 2, 1))


def test_a_length_that_was_learned_away_leaves_no_division_by_zero():
    fire, q = Fire(1, 8), torch.randn(1, 3, 1, 8)
    with torch.no_grad():
        fire.stretch.zero_()
    layout = Layout.full(1, 3)
    assert fire.bias(q, q, layout, layout).isfinite().all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(Fire, 1, 8, length=0.0), r"length and rate must be positive, but got 0\.0 and 0\.1\."),
        (partial(Fire, 1, 8, rate=-1.0), r"length and rate must be positive, but got 512\.0 and -1\.0\."),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()
