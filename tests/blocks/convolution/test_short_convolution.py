"""Holds the short convolution to its definition: taps on each channel, SiLU, then channels mixed."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.convolution.short_convolution import ShortConvolution

D = 3


def make(causal: bool = True, size: int = 3) -> ShortConvolution:
    mixer = ShortConvolution(D, Mask(causal), size=size).double()
    torch.nn.init.normal_(mixer.bias)
    return mixer


def by_hand(mixer: ShortConvolution, x: Tensor, back: int, ahead: int) -> Tensor:
    """One document, token by token. (T, D)"""
    out = []
    for t in range(len(x)):
        y = mixer.bias
        for tap, s in zip(mixer.taps, range(t - back, t + ahead + 1), strict=True):
            y = y + (tap * x[s] if 0 <= s < len(x) else 0)
        out.append(mixer.to_out(F.silu(y)))
    return torch.stack(out)


@pytest.mark.parametrize("size", [1, 3, 9])
@pytest.mark.parametrize("causal", [True, False])
def test_each_channel_is_weighed_over_its_neighbours(size: int, causal: bool) -> None:
    mixer, x = make(causal, size), torch.randn(1, 6, D, dtype=torch.float64)
    expected = by_hand(mixer, x[0], size - 1, 0 if causal else size - 1)
    assert_close(mixer(x, Layout.full(1, 6))[0][0], expected)


def test_torchs_depthwise_convolution_gives_the_same() -> None:
    mixer, x = make(), torch.randn(2, 8, D, dtype=torch.float64)
    y = F.conv1d(F.pad(x.mT, (2, 0)), mixer.taps.T[:, None], mixer.bias, groups=D).mT
    assert_close(mixer(x, Layout.full(2, 8))[0], mixer.to_out(F.silu(y)))


def test_without_a_nonlinearity_it_is_the_separable_convolution_of_the_source() -> None:
    mixer, x = ShortConvolution(D, Mask(True), size=3, activation="none").double(), torch.randn(2, 8, D).double()
    y = F.conv1d(F.pad(x.mT, (2, 0)), mixer.taps.T[:, None], mixer.bias, groups=D)
    y = F.conv1d(y, mixer.to_out.weight[..., None], mixer.to_out.bias).mT
    assert_close(mixer(x, Layout.full(2, 8))[0], y)


@pytest.mark.parametrize("causal", [True, False])
def test_a_convolution_ends_with_its_document_and_looks_through_padding(causal: bool) -> None:
    position = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [0, 1, PAD, PAD, 0, 0, 1, PAD, 2]])
    document = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, PAD], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])
    mixer, x = make(causal), torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = mixer(x, Layout(position, document))
    for row in range(2):
        for one in range(int(document[row].max()) + 1):
            at = (document[row] == one).nonzero()[:, 0]
            assert_close(y[row, at], by_hand(mixer, x[row, at], 2, 0 if causal else 2))


def test_the_state_is_the_last_real_tokens() -> None:
    mixer, x = make(), torch.randn(1, 6, D, dtype=torch.float64)
    layout = Layout(torch.tensor([[0, 1, PAD, 2, 3, PAD]]), torch.tensor([[0, 0, PAD, 0, 0, PAD]]))
    _, state = mixer(x, layout, mixer.empty_state(1, 6))
    assert_close(state.x[0], x[0, [3, 4]])
    assert mixer.cost(6).state_bytes == state.bytes() == 2 * (D * 8 + 8)


def test_what_it_can_not_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^size must be at least 1, but got 0\.$"):
        ShortConvolution(D, Mask(True), size=0)
    with pytest.raises(ValueError, match=r"^activation must be silu or none, but got 'relu'\.$"):
        ShortConvolution(D, Mask(True), activation="relu")  # type: ignore[arg-type]
    sentence = r"^mask must be causal to go on from a state, but this ShortConvolution reads both ways\.$"
    with pytest.raises(ValueError, match=sentence):
        make(causal=False).empty_state(1, 1)

    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    sentence = r"^mask must be causal or full for ShortConvolution, which has its own reach, but got Odd\.$"
    with pytest.raises(ValueError, match=sentence):
        ShortConvolution(D, Odd(True))
