"""Holds S4D to its recurrence, step by step in complex numbers, however a row is laid out."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import PAD, Layout, Mask
from blocks.recurrent.s4d import CHUNK, S4D, Oscillation

D = 3


def make(causal: bool = True, **choices: object) -> S4D:
    return S4D(D, Mask(causal), **{"d_state": 6, **choices}).double()


def oscillate(system: Oscillation, u: Tensor) -> Tensor:
    """One document. (T, D)"""
    dt = system.log_dt.exp()[:, None]
    a = torch.complex(-system.log_fade.exp(), system.turn)
    keep, write, read = (dt * a).exp(), ((dt * a).exp() - 1) / a, torch.view_as_complex(system.read)
    s, out = torch.zeros_like(a), []
    for token in u:
        s = keep * s + write * token[:, None]
        out.append(2 * (read * s).real.sum(-1))
    return torch.stack(out)


def by_hand(mixer: S4D, x: Tensor) -> Tensor:
    y = oscillate(mixer.there, x) + mixer.skip * x
    if mixer.back is not None:
        y = y + oscillate(mixer.back, x.flip(0)).flip(0)
    y = F.gelu(y)
    return mixer.to_out(y) * torch.sigmoid(mixer.to_gate(y))


def ragged(length: int) -> Layout:
    """Documents of random lengths in two rows, and padding anywhere."""
    document = (torch.rand(2, length) < 4 / length).long().cumsum(1)
    document = document.masked_fill(torch.rand(2, length) < 0.1, PAD)
    position = torch.full_like(document, PAD)
    for row in range(2):
        for one in document[row].unique():
            at = (document[row] == one) & (one != PAD)
            position[row, at] = torch.arange(int(at.sum()))
    return Layout(position, document)


@pytest.mark.parametrize("length", [1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("causal", [True, False])
def test_a_row_is_its_recurrence(length: int, causal: bool) -> None:
    mixer, x = make(causal), torch.randn(1, length, D, dtype=torch.float64)
    assert_close(mixer(x, Layout.full(1, length))[0][0], by_hand(mixer, x[0]))


@pytest.mark.parametrize("length", [9, CHUNK, 3 * CHUNK + 7])
@pytest.mark.parametrize("causal", [True, False])
def test_documents_and_padding_do_not_meet(length: int, causal: bool) -> None:
    mixer, x, layout = make(causal), torch.randn(2, length, D, dtype=torch.float64), ragged(length)
    y, _ = mixer(x, layout)
    assert y.isfinite().all()
    for row in range(2):
        for one in layout.document[row].unique().tolist():
            at = (layout.document[row] == one).nonzero()[:, 0]
            if one != PAD:
                assert_close(y[row, at], by_hand(mixer, x[row, at]))


@pytest.mark.parametrize("split", [(200,), (1, 199), (70, 1, 129), (64, 64, 72), (130, *(1,) * 20, 50)])
def test_any_split_gives_the_whole(split: tuple[int, ...]) -> None:
    mixer, x = make(), torch.randn(2, 200, D, dtype=torch.float64)
    for layout in (Layout.full(2, 200), ragged(200)):
        whole, _ = mixer(x, layout)
        state, start = mixer.empty_state(2, 200), 0
        for size in split:
            y, state = mixer(x[:, start : start + size], layout.slice(start, start + size), state)
            real = layout.real[:, start : start + size]
            assert_close(y[real], whole[:, start : start + size][real])
            start += size


def test_a_state_is_held_where_a_row_has_nothing_to_read() -> None:
    mixer, x = make(), torch.randn(2, 4, D, dtype=torch.float64)
    _, before = mixer(x, Layout.full(2, 4), mixer.empty_state(2, 16))
    for length in (1, 3):
        blank = torch.full((2, length), PAD)
        assert torch.equal(mixer(x[:, :length], Layout(blank, blank), before)[1].s, before.s)


def test_later_tokens_change_nothing_before_them_in_a_row_of_many_chunks() -> None:
    mixer, x, layout = make(), torch.randn(1, 300, D, dtype=torch.float64), Layout.full(1, 300)
    before = mixer(x, layout)[0]
    for cut in (1, 64, 100, 299):
        other = torch.cat([x[:, :cut], torch.randn(1, 300 - cut, D, dtype=torch.float64)], dim=1)
        assert torch.equal(mixer(other, layout)[0][:, :cut], before[:, :cut])


def test_oscillators_start_evenly_spaced_or_crowded_at_slow_ones() -> None:
    lin, inv = make(start="lin").there, make(start="inv").there
    for n in range(3):
        assert_close(lin.turn[:, n], torch.full((D,), math.pi * n, dtype=torch.float64), rtol=1e-6, atol=0)
        slow = 6 / math.pi * (6 / (2 * n + 1) - 1)
        assert_close(inv.turn[:, n], torch.full((D,), slow, dtype=torch.float64), rtol=1e-6, atol=0)
    assert_close(-lin.log_fade.exp(), torch.full((D, 3), -0.5, dtype=torch.float64), rtol=1e-6, atol=0)
    dt = S4D(500, Mask(True), shortest=0.01, longest=0.02).there.log_dt.exp()
    assert dt.min() >= 0.01 - 1e-6
    assert dt.max() <= 0.02 + 1e-6
    assert 0.0135 < dt.median() < 0.0148  # the middle of the logarithms


def test_the_state_is_constant_and_exact() -> None:
    cost = make().cost(5000)
    assert cost.state_bytes == D * 3 * 2 * 8
    mixer = S4D(D, Mask(True)).to(torch.bfloat16)
    _, state = mixer(torch.randn(1, 3, D, dtype=torch.bfloat16), Layout.full(1, 3), mixer.empty_state(1, 3))
    assert state.s.dtype == torch.float32


@pytest.mark.parametrize("length", [1, 20, CHUNK, CHUNK + 1, 300])
@pytest.mark.parametrize("causal", [True, False])
def test_products_are_counted(length: int, causal: bool) -> None:
    mixer = make(causal).to("meta")
    x = torch.empty(1, length, D, dtype=torch.float64, device="meta")
    with FlopCounterMode(display=False) as counter:
        mixer(x, Layout.full(1, length, "meta"))
    assert mixer.cost(length).flops == counter.get_total_flops()


def test_what_it_can_not_do_is_refused() -> None:
    sentence = r"^d_state must be even and positive, two numbers for an oscillator, but got 5\.$"
    with pytest.raises(ValueError, match=sentence):
        make(d_state=5)
    with pytest.raises(ValueError, match=r"^shortest must be positive and at most longest, but got 0\.2 and 0\.1\.$"):
        make(shortest=0.2)
    with pytest.raises(
        ValueError, match=r"^mask must be causal to go on from a state, but this S4D reads both ways\.$"
    ):
        make(causal=False).empty_state(1, 1)

    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    sentence = r"^mask must be causal or full for S4D, which has no way to skip tokens, but got Odd\.$"
    with pytest.raises(ValueError, match=sentence):
        S4D(D, Odd(True))
