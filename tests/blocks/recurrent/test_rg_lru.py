"""Holds Griffin's recurrent block to its formula: convolution, gated recurrence, gate."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.recurrent.rg_lru import RGLRU, Recurrence

D, H = 4, 3
POSITION = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [0, 1, PAD, PAD, 0, 0, 1, PAD, 2]])
DOCUMENT = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, PAD], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])


def make(causal: bool = True) -> RGLRU:
    mixer = RGLRU(D, Mask(causal), d_hidden=H, size=3).double()
    torch.nn.init.normal_(mixer.bias)
    return mixer


def recur(recurrence: Recurrence, u: Tensor) -> Tensor:
    h, out = torch.zeros(H, dtype=torch.float64), []
    for token in u:
        r, i = torch.sigmoid(recurrence.to_decay(token)), torch.sigmoid(recurrence.to_input(token))
        a = torch.sigmoid(recurrence.base) ** (8 * r)
        h = a * h + torch.sqrt(1 - a**2) * i * token
        out.append(h)
    return torch.stack(out)


def by_hand(mixer: RGLRU, x: Tensor) -> Tensor:
    """One document, token by token. (T, D)"""
    hidden, u = mixer.to_hidden(x), []
    for t in range(len(x)):
        taps = enumerate(mixer.taps, start=t - 2)
        u.append(mixer.bias + sum(tap * hidden[s] for s, tap in taps if 0 <= s < len(x)))
    h = recur(mixer.there, torch.stack(u))
    if mixer.back is not None:
        h = h + recur(mixer.back, torch.stack(u[::-1])).flip(0)
    return mixer.to_out(h * F.gelu(mixer.to_gate(x), approximate="tanh"))


@pytest.mark.parametrize("causal", [True, False])
def test_a_convolution_a_recurrence_and_a_gate(causal: bool) -> None:
    mixer, x = make(causal), torch.randn(1, 7, D, dtype=torch.float64)
    assert_close(mixer(x, Layout.full(1, 7))[0][0], by_hand(mixer, x[0]))


@pytest.mark.parametrize("causal", [True, False])
def test_documents_and_padding_do_not_meet(causal: bool) -> None:
    mixer, x = make(causal), torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = mixer(x, Layout(POSITION, DOCUMENT))
    for row in range(2):
        for one in range(int(DOCUMENT[row].max()) + 1):
            at = (DOCUMENT[row] == one).nonzero()[:, 0]
            assert_close(y[row, at], by_hand(mixer, x[row, at]))


def test_any_split_of_padded_and_packed_rows_gives_the_whole() -> None:
    mixer, x, layout = make(), torch.randn(2, 9, D, dtype=torch.float64), Layout(POSITION, DOCUMENT)
    whole, _ = mixer(x, layout)
    for split in ((9,), (1,) * 9, (3, 6), (6, 1, 2)):
        state, start = mixer.empty_state(2, 9), 0
        for size in split:
            y, state = mixer(x[:, start : start + size], layout.slice(start, start + size), state)
            real = layout.real[:, start : start + size]
            assert_close(y[real], whole[:, start : start + size][real])
            start += size


def test_an_open_gate_keeps_nine_tenths_or_more_at_the_start() -> None:
    decay = torch.sigmoid(Recurrence(1000).base) ** 8
    assert 0.9 - 1e-4 < decay.min() < 0.91
    assert 0.99 < decay.max() < 0.999 + 1e-4


def test_a_gate_that_is_shut_for_good_has_finite_gradients() -> None:
    """The size of what is added has no slope where a is 1."""
    recurrence, u = Recurrence(H), torch.randn(1, 4, H, requires_grad=True)
    torch.nn.init.zeros_(recurrence.to_decay.weight)
    torch.nn.init.constant_(recurrence.to_decay.bias, -1000.0)
    keep, added = recurrence(u)
    (keep.sum() + added.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in (u, *recurrence.parameters()))


def test_the_state_is_a_few_tokens_and_a_vector() -> None:
    cost = make().cost(1000)
    assert cost.state_bytes == 2 * (H * 8 + 8) + H * 8
    assert cost.flops == 2 * 1000 * (3 * D * H + 2 * H * H)


def test_what_it_can_not_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^size must be at least 1, but got 0\.$"):
        RGLRU(D, Mask(True), size=0)
    with pytest.raises(
        ValueError, match=r"^mask must be causal to go on from a state, but this RGLRU reads both ways\.$"
    ):
        make(causal=False).empty_state(1, 1)

    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    sentence = r"^mask must be causal or full for RGLRU, which has no way to skip tokens, but got Odd\.$"
    with pytest.raises(ValueError, match=sentence):
        RGLRU(D, Odd(True))
