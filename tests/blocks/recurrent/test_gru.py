"""Holds the gated recurrent unit to its formula."""

import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.recurrent.gru import GRU


def test_two_gates_choose_what_is_read_and_what_is_kept() -> None:
    gru = GRU(4, Mask(True), d_hidden=3).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    W, U, b, c = (getattr(gru.cell, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, out = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(5):
        from_x, from_h = (x[:, t] @ W.T + b).chunk(3, -1), (h @ U.T + c).chunk(3, -1)
        reset = torch.sigmoid(from_x[0] + from_h[0])
        update = torch.sigmoid(from_x[1] + from_h[1])
        new = torch.tanh(from_x[2] + reset * from_h[2])
        h = (1 - update) * new + update * h
        out.append(gru.to_out(h))
    assert_close(gru(x, Layout.full(2, 5))[0], torch.stack(out, dim=1))
