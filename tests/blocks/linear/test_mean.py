"""Constant values are read as constants, whatever the size of queries and keys: what is read is a mean."""

import pytest
import torch
from torch import nn

from blocks.contracts import Layout, Mask
from blocks.linear.based import Based
from blocks.linear.linear_attention import LinearAttention
from blocks.linear.performer import Performer

D = 32
MEANS = {
    **{f: lambda mask, f=f: LinearAttention(D, mask, n_heads=4, feature=f) for f in ("elu", "softmax", "exp")},
    "relu": lambda mask: LinearAttention(D, mask, n_heads=4, feature="relu"),
    "relu2": lambda mask: LinearAttention(D, mask, n_heads=4, feature="relu2"),
    "performer": lambda mask: Performer(D, mask, n_heads=4),
    "based": lambda mask: Based(D, mask, n_heads=4, feature_dim=4),
}


class One(nn.Module):
    """Values of 1."""

    def forward(self, x):
        return torch.ones_like(x)


class Same(nn.Module):
    """What was read, as it is; with a weight, by which states are made."""

    def __init__(self, like):
        super().__init__()
        self.weight = like.weight

    def forward(self, x):
        return x


def mean(name, causal, of_q, of_k):
    mixer = MEANS[name](Mask(causal))
    with torch.no_grad():
        mixer.to_q.weight.normal_(std=of_q / D**0.5)  # queries of this size
        mixer.to_k.weight.normal_(std=of_k / D**0.5)
    mixer.to_v, mixer.to_out = One(), Same(mixer.to_out)
    return mixer


def read(mixer, x, splits):
    layout, (B, T, _) = Layout.full(*x.shape[:2]), x.shape
    if splits is None:
        return mixer(x, layout)[0]
    state, parts, start = mixer.empty_state(B, T), [], 0
    for stop in (*splits, T):
        y, state = mixer(x[:, start:stop], layout.slice(start, stop), state)
        parts.append(y)
        start = stop
    return torch.cat(parts, 1)


@pytest.mark.parametrize("size", [1e-6, 0.1, 2.0, 20.0, 1000.0])
@pytest.mark.parametrize("name", MEANS)
def test_values_of_one_are_read_as_one(name, size):
    x = torch.randn(2, 50, D)
    for causal, splits in ((False, None), (True, None), (True, (20, 21))):
        for of_k in (1.0, size):
            with torch.no_grad():
                y = read(mean(name, causal, size, of_k), x, splits)
            nothing = (y == 0) if "relu" in name else torch.zeros_like(y, dtype=torch.bool)
            assert nothing.float().mean() < 0.05, "few queries share no channel with any key"
            torch.testing.assert_close(y[~nothing], torch.ones_like(y[~nothing]), rtol=1e-5, atol=1e-5)
