"""Holds the minimal GRU to its loop, and to the sum of logarithms in which its paper writes it."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.recurrent.min_gru import MinGRU, positive


def candidate(x: Tensor) -> Tensor:
    return torch.tensor([v + 0.5 if v >= 0 else 1 / (1 + math.exp(-v)) for v in x.flatten().tolist()]).view_as(x)


def by_hand(gates: Tensor, candidates: Tensor) -> Tensor:
    h, out = torch.zeros_like(gates[0]), []
    for z, new in zip(gates, candidates, strict=True):
        h = (1 - z) * h + z * new
        out.append(h)
    return torch.stack(out)


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_each_token_decides_how_much_of_the_past_is_kept() -> None:
    mixer, x = MinGRU(4, Mask(True), d_hidden=3), torch.randn(1, 7, 4)
    h = by_hand(torch.sigmoid(mixer.to_update(x[0])), candidate(mixer.to_candidate(x[0])))
    y, state = mixer(x, Layout.full(1, 7), mixer.empty_state(1, 7))
    assert_close(y[0], mixer.to_out(h))
    assert_close(state.hidden[0], h[-1])


def test_the_papers_sum_of_logarithms_gives_the_same() -> None:
    mixer, x = MinGRU(4, Mask(True)), torch.randn(1, 9, 4)
    k, new = mixer.to_update(x[0]), mixer.to_candidate(x[0])
    log_new = torch.where(new >= 0, torch.log(F.relu(new) + 0.5), -F.softplus(-new))
    faded = (-F.softplus(k)).cumsum(0)
    h = (faded + (log_new - F.softplus(-k) - faded).logcumsumexp(0)).exp()
    assert_close(mixer(x, Layout.full(1, 9))[0][0], mixer.to_out(h))


def test_under_a_full_mask_half_the_features_read_backwards() -> None:
    mixer, x = MinGRU(4, Mask(False), d_hidden=3), torch.randn(1, 7, 4)
    z, new = torch.sigmoid(mixer.to_update(x[0])), candidate(mixer.to_candidate(x[0]))
    on, back = by_hand(z[:, :3], new[:, :3]), by_hand(z[:, 3:].flip(0), new[:, 3:].flip(0)).flip(0)
    assert_close(mixer(x, Layout.full(1, 7))[0][0], mixer.to_out(torch.cat([on, back], dim=-1)))


def test_candidates_are_above_zero_and_without_a_step() -> None:
    x = torch.linspace(-30, 3, 100, requires_grad=True)
    y = positive(x)
    assert (y > 0).all()
    assert_close(y, candidate(x))
    assert_close(positive(torch.tensor(-1e-12)), positive(torch.tensor(0.0)))
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_steps_are_the_rounds_of_the_scan() -> None:
    mixer = MinGRU(4, Mask(True), d_hidden=3)
    cost = mixer.cost(16)
    assert cost.steps == 7
    assert mixer.path(15, 16) == (1, 7)
    assert cost.flops == 2 * 16 * 3 * 4 * 3
    assert cost.state_bytes == 3 * 8


def test_what_it_can_not_do_is_refused() -> None:
    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    sentence = r"^mask must be causal or full for MinGRU, which has no way to skip tokens, but got Odd\.$"
    with pytest.raises(ValueError, match=sentence):
        MinGRU(4, Odd(True))
    with pytest.raises(
        ValueError, match=r"^mask must be causal to go on from a state, but this MinGRU reads both ways\.$"
    ):
        MinGRU(4, Mask(False)).empty_state(1, 1)
