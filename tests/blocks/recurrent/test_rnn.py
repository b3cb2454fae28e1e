"""Holds the Elman network to its formula."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.recurrent.rnn import RNN


@pytest.mark.parametrize(("name", "act"), [("tanh", torch.tanh), ("relu", torch.relu)])
def test_each_state_mixes_the_token_and_the_state_before_it(name: str, act) -> None:
    rnn = RNN(4, Mask(True), d_hidden=3, nonlinearity=name).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    W, U, b, c = (getattr(rnn.cell, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, out = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(5):
        h = act(x[:, t] @ W.T + b + h @ U.T + c)
        out.append(rnn.to_out(h))
    assert_close(rnn(x, Layout.full(2, 5))[0], torch.stack(out, dim=1))


def test_dropout_acts_while_training_only() -> None:
    rnn, x = RNN(4, Mask(True), dropout=0.5), torch.randn(1, 6, 4)
    layout = Layout.full(1, 6)
    assert not torch.equal(rnn(x, layout)[0], rnn(x, layout)[0])
    rnn.eval()
    assert torch.equal(rnn(x, layout)[0], rnn(x, layout)[0])
