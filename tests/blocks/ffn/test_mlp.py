"""The plain feed-forward against its formula, one token at a time."""

import math

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.ffn.mlp import Mlp

FORMULAS = {
    "relu": lambda v: max(v, 0.0),
    "relu2": lambda v: max(v, 0.0) ** 2,
    "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "gelu_tanh": lambda v: v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2,
    "silu": lambda v: v / (1 + math.exp(-v)),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize("bias", [True, False])
def test_matches_the_formula(activation, bias):
    ffn = Mlp(4, d_ff=5, activation=activation, bias=bias).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    y, state = ffn(x, Layout.full(2, 3))
    for b in range(2):
        for t in range(3):
            hidden = [sum(w * f for w, f in zip(row, x[b, t], strict=True)) for row in ffn.to_hidden.weight]
            hidden = [h + ffn.to_hidden.bias[i] if bias else h for i, h in enumerate(hidden)]
            bent = torch.tensor([FORMULAS[activation](h.item()) for h in hidden], dtype=torch.float64)
            expected = ffn.to_out.weight @ bent
            assert_close(y[b, t], expected + ffn.to_out.bias if bias else expected)
    assert state is None


def test_is_four_times_as_wide_unless_told():
    assert Mlp(16).to_hidden.out_features == 64


def test_drops_hidden_features_only_while_training():
    ffn, x, layout = Mlp(8, dropout=0.5), torch.randn(2, 3, 8), Layout.full(2, 3)
    assert not torch.equal(ffn(x, layout)[0], ffn(x, layout)[0])
    ffn.eval()
    assert torch.equal(ffn(x, layout)[0], ffn(x, layout)[0])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"d_ff": 0}, r"d_ff must be positive, but got 0\."),
        (
            {"activation": "swish"},
            r"activation must be one of relu, relu2, gelu, gelu_tanh, silu, sigmoid, tanh, but got 'swish'\.",
        ),
    ],
)
def test_refuses_what_does_not_exist(choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Mlp(8, **choices)
