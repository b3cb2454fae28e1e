"""Layer norm against its formula, token by token."""

import pytest
import torch
from torch.testing import assert_close

from blocks.norm.layer import LayerNorm


@pytest.mark.parametrize("bias", [True, False])
def test_matches_the_formula(bias):
    norm = LayerNorm(8, eps=0.1, bias=bias).double()
    torch.nn.init.normal_(norm.weight)
    if bias:
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    y = norm(x)
    for b in range(2):
        for t in range(3):
            token = x[b, t]
            mean = sum(token) / 8
            variance = sum((f - mean) ** 2 for f in token) / 8
            expected = (token - mean) / (variance + 0.1) ** 0.5 * norm.weight
            assert_close(y[b, t], expected + norm.bias if bias else expected)


def test_keeps_the_dtype_of_the_stream():
    assert LayerNorm(8)(torch.randn(3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_refuses_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"^eps must be positive, but got 0\.0\.$"):
        LayerNorm(8, eps=0.0)
