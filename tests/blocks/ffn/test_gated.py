"""Gated feed-forwards against their formula, under each of their names."""

import math

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.ffn.gated import Gated
from registry import factory

GATES = {
    "glu": lambda v: 1 / (1 + math.exp(-v)),
    "reglu": lambda v: max(v, 0.0),
    "geglu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "swiglu": lambda v: v / (1 + math.exp(-v)),
}


@pytest.mark.parametrize("name", GATES)
def test_matches_the_formula(name):
    ffn = factory({"name": f"ffn/{name}", "d_ff": 5})(4).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    y, _ = ffn(x, Layout.full(2, 3))
    for b in range(2):
        for t in range(3):
            gate = [GATES[name]((row @ x[b, t]).item()) for row in ffn.to_gate.weight]
            hidden = [g * (row @ x[b, t]) for g, row in zip(gate, ffn.to_hidden.weight, strict=True)]
            assert_close(y[b, t], ffn.to_out.weight @ torch.stack(hidden))


@pytest.mark.parametrize(("d_model", "d_ff"), [(64, 176), (384, 1024), (3, 8)])
def test_is_as_large_as_a_plain_one_unless_told(d_model, d_ff):
    assert Gated(d_model).to_gate.out_features == d_ff


def test_refuses_a_width_that_is_not_positive():
    with pytest.raises(ValueError, match=r"^d_ff must be positive, but got -1\.$"):
        Gated(8, d_ff=-1)
