"""Holds the gated recurrent unit to its formula."""

from typing import Literal

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.laws import laws_of, stirred
from blocks.recurrent.gru import GRU


@pytest.mark.parametrize("reset_gate", ["after", "before"])
def test_two_gates_choose_what_is_read_and_what_is_kept(reset_gate: Literal["after", "before"]) -> None:
    gru = GRU(4, Mask(True), d_hidden=3, reset=reset_gate).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    W, U, b, c = (getattr(gru.cell, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, out = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(5):
        from_x, from_h = (x[:, t] @ W.T + b).chunk(3, -1), (h @ U.T + c).chunk(3, -1)
        reset = torch.sigmoid(from_x[0] + from_h[0])
        update = torch.sigmoid(from_x[1] + from_h[1])
        if reset_gate == "before":  # Cho et al. 2014, equation 8
            new = torch.tanh(from_x[2] + (reset * h) @ U[6:].T + c[6:])
        else:
            new = torch.tanh(from_x[2] + reset * from_h[2])
        h = (1 - update) * new + update * h
        out.append(gru.to_out(h))
    assert_close(gru(x, Layout.full(2, 5))[0], torch.stack(out, dim=1))


def test_the_two_forms_differ_and_share_their_parameters() -> None:
    after, before = GRU(4, Mask(True)), GRU(4, Mask(True), reset="before")
    before.load_state_dict(after.state_dict())
    x = torch.randn(1, 6, 4)
    assert (after(x, Layout.full(1, 6))[0] - before(x, Layout.full(1, 6))[0]).abs().max() > 1e-3
    with torch.no_grad():
        for gru in (after, before):  # an open gate is the same at both places
            gru.cell.bias_ih_l0[:4] = 100.0
    assert_close(after(x, Layout.full(1, 6))[0], before(x, Layout.full(1, 6))[0])


@pytest.mark.parametrize("causal", [True, False])
def test_the_reset_gate_before_the_product_keeps_every_law(causal: bool) -> None:
    gru = stirred(GRU(64, Mask(causal), reset="before").double().eval())
    for law in laws_of(gru):
        torch.manual_seed(0)
        law(gru)


def test_both_ways_it_is_read_from_either_end_of_each_document() -> None:
    gru = GRU(4, Mask(False), d_hidden=3, reset="before").double()
    document = torch.tensor([[0, 0, 0, PAD, 1, 1], [0, 1, 1, 1, 1, PAD]])
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    y, _ = gru(x, Layout.packed(document))
    one = GRU(4, Mask(True), d_hidden=3, reset="before").double()
    for row, number in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = x[row : row + 1, document[row] == number]
        halves = []
        for suffix, tokens in (("", part), ("_reverse", part.flip(1))):
            with torch.no_grad():
                for name, p in one.cell.named_parameters():
                    p.copy_(getattr(gru.cell, f"{name}{suffix}"))
            read = one.cell(tokens)[0]
            halves.append(read if not suffix else read.flip(1))
        assert_close(y[row : row + 1, document[row] == number], gru.to_out(torch.cat(halves, dim=-1)))


def test_refuses_another_place() -> None:
    with pytest.raises(ValueError, match=r"^reset must be after or before, but got 'middle'\.$"):
        GRU(4, Mask(True), reset="middle")  # type: ignore[arg-type]
