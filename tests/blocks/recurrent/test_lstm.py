"""Holds long short-term memory to its formula, and its gates to their start."""

import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.recurrent.lstm import LSTM


def test_gates_write_forget_and_read_a_cell() -> None:
    lstm = LSTM(4, Mask(True), d_hidden=3).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    W, U, b, d = (getattr(lstm.cell, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, c, out = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(5):
        write, forget, new, read = (x[:, t] @ W.T + b + h @ U.T + d).chunk(4, -1)
        c = forget.sigmoid() * c + write.sigmoid() * new.tanh()
        h = read.sigmoid() * c.tanh()
        out.append(lstm.to_out(h))
    y, state = lstm(x, Layout.full(2, 5), lstm.empty_state(2, 5))
    assert_close(y, torch.stack(out, dim=1))
    assert_close(state.hidden, h)
    assert_close(state.cell, c)


def test_forget_gates_start_open_in_both_directions() -> None:
    lstm = LSTM(8, Mask(False), d_hidden=3)
    for suffix in ("", "_reverse"):
        bias = getattr(lstm.cell, f"bias_ih_l0{suffix}") + getattr(lstm.cell, f"bias_hh_l0{suffix}")
        assert (bias[3:6] == 1).all()
        assert (bias[:3] != 1).all()
        assert (bias[6:] != 1).all()


def test_at_the_start_a_cell_without_inputs_keeps_the_sigmoid_of_one() -> None:
    """Of a token that says nothing, with the kernel and with torch's cell."""
    lstm = LSTM(4, Mask(True), d_hidden=3).double()
    state = lstm.empty_state(1, 1)
    state.cell.fill_(1.0)
    with torch.no_grad():
        lstm.cell.bias_ih_l0[:3] = -50.0  # nothing is written
        lstm.cell.bias_hh_l0[:3] = -50.0
    last = Layout.full(1, 2).slice(1, 2)
    _, state = lstm(torch.zeros(1, 1, 4, dtype=torch.float64), last, state)
    assert_close(state.cell, torch.full((1, 3), 1.0, dtype=torch.float64).sigmoid())
