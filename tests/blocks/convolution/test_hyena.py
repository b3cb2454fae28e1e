"""Holds Hyena to its formula: two gates, three short convolutions, and a long one whose filter is spoken."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.convolution.hyena import Hyena
from blocks.laws import laws_of, stirred

D = 4


def make(causal: bool = True, **choices: object) -> Hyena:
    return Hyena(D, Mask(causal), **choices).double()


def short(mixer: Hyena, x: Tensor, ahead: int) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(len(x)):
        for i, tap in enumerate(mixer.taps):
            if 0 <= (s := t - 2 + i) < len(x):
                out[t] += tap * x[s]
        out[t] += 0 if mixer.bias is None else mixer.bias
    assert len(mixer.taps) == 3 + ahead
    return out


def by_hand(mixer: Hyena, x: Tensor, ahead: int = 0) -> Tensor:
    """One document, token by token. (T, D)"""
    v, a, b = short(mixer, mixer.to_in(x), ahead).chunk(3, dim=-1)
    u, T = a * v, len(x)
    on, *back = mixer.filter(T, x.device)
    long = torch.zeros_like(u)
    for t in range(T):
        for s in range(t + 1):
            long[t] += on[t - s] * u[s]
        for taps in back:
            for s in range(t, T):
                long[t] += taps[s - t] * u[s]
    return mixer.to_out(b * (long + mixer.skip * u))


@pytest.mark.parametrize("form", ["plain", "published"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 5, 70])
def test_a_long_convolution_stands_between_two_gates(causal: bool, length: int, form: str) -> None:
    mixer, x = make(causal, form=form), torch.randn(1, length, D, dtype=torch.float64)
    assert_close(mixer(x, Layout.full(1, length))[0][0], by_hand(mixer, x[0], 0 if causal else 2))


@pytest.mark.parametrize("causal", [True, False])
def test_documents_and_padding_do_not_meet(causal: bool) -> None:
    position = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [0, 1, PAD, PAD, 0, 0, 1, PAD, 2]])
    document = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, PAD], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])
    mixer, x = make(causal), torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = mixer(x, Layout(position, document))
    for row in range(2):
        for one in range(int(document[row].max()) + 1):
            at = (document[row] == one).nonzero()[:, 0]
            assert_close(y[row, at], by_hand(mixer, x[row, at], 0 if causal else 2))


def test_the_filter_is_a_faded_network_of_sines_of_time() -> None:
    mixer = make(time_scale=10, bands=2, frequency=3.0)
    (taps,) = mixer.filter(6, torch.device("cpu"))
    one, two = mixer.filter.layers
    for k in range(6):
        t = k / 10
        waves = [f(2 * math.pi * n * t) for f in (math.cos, math.sin) for n in (1, 2)]
        h = torch.sin(3 * two(torch.sin(3 * one(torch.tensor([t, *waves], dtype=torch.float64)))))
        for channel, spoken in enumerate(mixer.filter.to_taps(h)):
            rate = 1 / 0.3 + (1 / 1.5 - 1 / 0.3) * channel / (D - 1)
            assert_close(taps[k, channel], spoken * 0.01 ** (rate * t))


def test_both_directions_fade_alike() -> None:
    mixer = make(causal=False)
    torch.nn.init.zeros_(mixer.filter.to_taps.weight)
    torch.nn.init.constant_(mixer.filter.to_taps.weight, 0.1)
    on, back = mixer.filter(9, torch.device("cpu"))
    assert_close(on, back)


def test_later_tokens_change_nothing_before_them_in_a_row_of_many_blocks() -> None:
    mixer, x = make(), torch.randn(1, 300, D, dtype=torch.float64)
    before = mixer(x, Layout.full(1, 300))[0]
    for cut in (70, 129, 299):
        other = torch.cat([x[:, :cut], torch.randn(1, 300 - cut, D, dtype=torch.float64)], dim=1)
        assert torch.equal(mixer(other, Layout.full(1, 300))[0][:, :cut], before[:, :cut])


def test_a_long_prompt_goes_on_in_steps() -> None:
    mixer, x = make(), torch.randn(2, 140, D, dtype=torch.float64)
    layout, state, parts = Layout.full(2, 140), mixer.empty_state(2, 140), []
    whole, _ = mixer(x, layout)
    for start, stop in [(0, 100), (100, 130), *((t, t + 1) for t in range(130, 140))]:
        y, state = mixer(x[:, start:stop], layout.slice(start, stop), state)
        parts.append(y)
    assert_close(torch.cat(parts, dim=1), whole)
    assert state.gated.x.shape == (2, 140, D)


def test_the_state_keeps_all_that_is_read_again() -> None:
    assert make().cost(16).state_bytes == 8 * (2 * 3 * D + 2) + 8 * (16 * D + 16) + 8 * 17 * D


def in_steps(mixer: Hyena, x: Tensor) -> Tensor:
    layout, state, parts = Layout.full(len(x), x.shape[1]), mixer.empty_state(len(x), x.shape[1]), []
    for t in range(x.shape[1]):
        y, state = mixer(x[:, t : t + 1], layout.slice(t, t + 1), state)
        parts.append(y)
    return torch.cat(parts, dim=1)


def test_the_filter_is_spoken_once_for_many_steps_and_for_all_rows() -> None:
    mixer, x, asked = make(), torch.randn(3, 9, D, dtype=torch.float64), []
    mixer.filter.register_forward_hook(lambda *call: asked.append(call[1][0]))
    with torch.no_grad():
        in_steps(mixer, x)
        assert asked == [10]
        state = mixer.empty_state(3, 9)
    assert state.select(torch.tensor([2, 2, 0, 1])).spoken is state.spoken
    assert not state.spoken.taps.requires_grad


def test_the_filter_learns_from_steps_as_from_the_whole() -> None:
    mixer, x = make(), torch.randn(2, 9, D, dtype=torch.float64)
    parameters = list(mixer.parameters())
    whole = torch.autograd.grad(mixer(x, Layout.full(2, 9))[0].square().sum(), parameters)
    stepped = torch.autograd.grad(in_steps(mixer, x).square().sum(), parameters)
    for got, expected in zip(stepped, whole, strict=True):
        assert_close(got, expected)


def test_a_new_state_speaks_the_filter_of_the_day() -> None:
    mixer, x = make(), torch.randn(1, 9, D, dtype=torch.float64)
    with torch.no_grad():
        in_steps(mixer, x)
        mixer.filter.to_taps.weight.mul_(3)
        assert_close(in_steps(mixer, x), mixer(x, Layout.full(1, 9))[0])


def test_what_it_can_not_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^time_scale must be at least 1, but got 0\.$"):
        make(time_scale=0)
    with pytest.raises(ValueError, match=r"^bands must be at least 1, but got 0\.$"):
        make(bands=0)
    with pytest.raises(
        ValueError, match=r"^mask must be causal to go on from a state, but this Hyena reads both ways\.$"
    ):
        make(causal=False).empty_state(1, 1)

    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    sentence = r"^mask must be causal or full for Hyena, which has its own reach, but got Odd\.$"
    with pytest.raises(ValueError, match=sentence):
        Hyena(D, Odd(True))


@pytest.mark.parametrize("causal", [True, False])
def test_the_published_form_keeps_every_law(causal: bool) -> None:
    hyena = stirred(Hyena(64, Mask(causal), form="published").double().eval())
    for law in laws_of(hyena):
        torch.manual_seed(0)
        law(hyena)


def test_the_published_filter_is_that_of_the_authors() -> None:
    """Three layers of sines that share their frequencies, told the time, and bands from none to two turns."""
    mixer = make(form="published", time_scale=10, bands=3)
    network = mixer.filter
    assert len(network.layers) == 3
    assert network.frequency.shape == (1, 64)
    with torch.no_grad():
        network.frequency.uniform_(5.0, 15.0)
    (taps,) = network(6, torch.device("cpu"))
    for k in range(6):
        time = k / 10
        turns = [2 * math.pi * f * time for f in (1e-4, (2 + 1e-4) / 2, 2.0)]
        h = torch.tensor([time, *map(math.cos, turns), *map(math.sin, turns)], dtype=torch.float64)
        for layer in network.layers:
            h = torch.sin(network.frequency[0] * layer(h))
        rates = [abs(math.log(0.01)) * (1 / 0.3 + (1 / 1.5 - 1 / 0.3) * channel / (D - 1)) for channel in range(D)]
        fade = torch.tensor([math.exp(-time * rate) for rate in rates], dtype=torch.float64)
        assert_close(taps[k], network.to_taps(h) * fade)


def test_dropout_acts_behind_the_gates_or_before_the_long_convolution() -> None:
    assert (make(dropout=0.5).dropout.p, make(dropout=0.5).dropout_gated.p) == (0.5, 0.0)
    published = make(dropout=0.5, form="published")
    assert (published.dropout.p, published.dropout_gated.p) == (0.0, 0.5)


def test_refuses_another_form() -> None:
    with pytest.raises(ValueError, match=r"^form must be plain or published, but got 'long'\.$"):
        make(form="long")
