"""Holds the minimal LSTM to its loop: a forget and an input gate that share one whole."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.recurrent.min_gru import positive
from blocks.recurrent.min_lstm import MinLSTM


def by_hand(forget: Tensor, write: Tensor, candidates: Tensor) -> Tensor:
    h, out = torch.zeros_like(forget[0]), []
    for f, i, new in zip(torch.sigmoid(forget), torch.sigmoid(write), candidates, strict=True):
        h = f / (f + i) * h + i / (f + i) * new
        out.append(h)
    return torch.stack(out)


def gates(mixer: MinLSTM, x: Tensor) -> list[Tensor]:
    return [mixer.to_forget(x), mixer.to_input(x), positive(mixer.to_candidate(x))]


def test_two_gates_weigh_the_past_and_the_new() -> None:
    mixer, x = MinLSTM(4, Mask(True), d_hidden=3).double(), torch.randn(1, 7, 4, dtype=torch.float64)
    h = by_hand(*gates(mixer, x[0]))
    y, state = mixer(x, Layout.full(1, 7), mixer.empty_state(1, 7))
    assert_close(y[0], mixer.to_out(h))
    assert_close(state.hidden[0], h[-1])


def test_under_a_full_mask_half_the_features_read_backwards() -> None:
    mixer, x = MinLSTM(4, Mask(False), d_hidden=3).double(), torch.randn(1, 7, 4, dtype=torch.float64)
    made = gates(mixer, x[0])
    on = by_hand(*(g[:, :3] for g in made))
    back = by_hand(*(g[:, 3:].flip(0) for g in made)).flip(0)
    assert_close(mixer(x, Layout.full(1, 7))[0][0], mixer.to_out(torch.cat([on, back], dim=-1)))


def test_gates_that_are_both_shut_still_share_one_whole() -> None:
    """f / (f + i) of two gates that round to zero is not 0 / 0."""
    mixer, x = MinLSTM(4, Mask(True)), torch.randn(1, 5, 4)
    for gate in (mixer.to_forget, mixer.to_input):
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, -200.0)
    new = positive(mixer.to_candidate(x[0]))
    expected = by_hand(torch.zeros_like(new), torch.zeros_like(new), new)
    assert_close(mixer(x, Layout.full(1, 5))[0][0], mixer.to_out(expected))


def test_what_it_can_not_do_is_refused() -> None:
    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    sentence = r"^mask must be causal or full for MinLSTM, which has no way to skip tokens, but got Odd\.$"
    with pytest.raises(ValueError, match=sentence):
        MinLSTM(4, Odd(True))
