"""Dynamic tanh against its formula."""

import math

import pytest
import torch
from torch.testing import assert_close

from blocks.norm.dynamic_tanh import DynamicTanh


def test_matches_the_formula():
    norm, x = DynamicTanh(4, slope=0.7).double(), torch.randn(3, 4, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    y, slope = norm(x), norm.slope.item()
    for t in range(3):
        for d in range(4):
            assert_close(y[t, d], math.tanh(slope * x[t, d].item()) * norm.weight[d] + norm.bias[d])


def test_one_feature_does_not_touch_another():
    norm, x = DynamicTanh(4), torch.randn(4)
    other = x.clone()
    other[0] = 100.0
    assert torch.equal(norm(other)[1:], norm(x)[1:])


def test_refuses_a_slope_of_zero():
    with pytest.raises(ValueError, match=r"^slope must not be zero, but got 0\.0\.$"):
        DynamicTanh(8, slope=0.0)
