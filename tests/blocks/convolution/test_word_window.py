"""Holds the word window to its definition: neighbours side by side, one linear map, one nonlinearity."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.convolution.word_window import WordWindow

D = 3
POSITION = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [3, 4, PAD, PAD, 0, 0, 1, PAD, 2]])
DOCUMENT = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, PAD], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])


def by_hand(mixer: WordWindow, x: Tensor, back: int, ahead: int, act=torch.relu) -> Tensor:
    """One document, window by window. (T, D)"""
    out = []
    for t in range(len(x)):
        window = [x[s] if 0 <= s < len(x) else torch.zeros_like(x[0]) for s in range(t - back, t + ahead + 1)]
        out.append(mixer.to_out(act(mixer.to_hidden(torch.cat(window)))))
    return torch.stack(out)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("causal", [True, False])
def test_neighbours_stand_side_by_side(size: int, causal: bool) -> None:
    mixer, x = WordWindow(D, Mask(causal), size=size, d_hidden=5).double(), torch.randn(1, 6, D, dtype=torch.float64)
    expected = by_hand(mixer, x[0], size, 0 if causal else size)
    assert_close(mixer(x, Layout.full(1, 6))[0][0], expected)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("relu", torch.relu),
        ("gelu", torch.nn.functional.gelu),
        ("silu", torch.nn.functional.silu),
        ("tanh", torch.tanh),
    ],
)
def test_the_activation_goes_by_its_name(name: str, act) -> None:
    mixer, x = WordWindow(D, Mask(True), activation=name).double(), torch.randn(1, 4, D, dtype=torch.float64)
    assert_close(mixer(x, Layout.full(1, 4))[0][0], by_hand(mixer, x[0], 2, 0, act))


@pytest.mark.parametrize("causal", [True, False])
def test_a_window_ends_with_its_document_and_looks_through_padding(causal: bool) -> None:
    mixer, x = WordWindow(D, Mask(causal), size=2).double(), torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = mixer(x, Layout(POSITION, DOCUMENT))
    assert y.isfinite().all()
    for row in range(2):
        for document in range(int(DOCUMENT[row].max()) + 1):
            at = (DOCUMENT[row] == document).nonzero()[:, 0]
            assert_close(y[row, at], by_hand(mixer, x[row, at], 2, 0 if causal else 2))


def test_a_document_goes_on_from_the_last_real_tokens() -> None:
    mixer = WordWindow(D, Mask(True), size=2).double()
    past, x = torch.randn(2, 5, D, dtype=torch.float64), torch.randn(2, 9, D, dtype=torch.float64)
    prompt = Layout(
        torch.tensor([[0, 1, PAD, 2, PAD], [PAD, 0, PAD, 1, 2]]),
        torch.tensor([[5, 5, PAD, 5, PAD], [PAD, 0, PAD, 0, 0]]),
    )
    _, state = mixer(past, prompt, mixer.empty_state(2, 14))
    assert_close(state.x[0], past[0, [1, 3]])
    y, state = mixer(x, Layout(POSITION, DOCUMENT), state)
    whole = by_hand(mixer, torch.cat([past[1, [1, 3, 4]], x[1, :2]]), 2, 0)
    assert_close(y[1, :2], whole[-2:])
    assert_close(y[0, [1, 2, 4]], by_hand(mixer, x[0, [1, 2, 4]], 2, 0))
    assert_close(state.x[1], x[1, [6, 8]])
    assert state.position[1].tolist() == [1, 2]


def test_what_has_no_size_or_is_not_causal_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^size must be at least 1, but got 0\.$"):
        WordWindow(D, Mask(True), size=0)
    with pytest.raises(
        ValueError, match=r"^mask must be causal to go on from a state, but this WordWindow reads both ways\.$"
    ):
        WordWindow(D, Mask(False)).empty_state(1, 1)

    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    with pytest.raises(
        ValueError,
        match=r"^mask must be causal or full for WordWindow, which has its own reach, but got Odd\.$",
    ):
        WordWindow(D, Odd(True))
