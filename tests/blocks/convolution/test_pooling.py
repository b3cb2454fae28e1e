"""Holds pooling to the mean it is: over a window, over a document, over a document so far."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.convolution.pooling import Pooling

D = 3
POSITION = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [0, 1, PAD, PAD, 0, 0, 1, PAD, 2]])
DOCUMENT = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, PAD], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])


def make(causal: bool, size: int | None) -> Pooling:
    return Pooling(D, Mask(causal), size=size).double()


def by_hand(x: Tensor, causal: bool, size: int | None) -> Tensor:
    """One document, token by token. (T, D)"""
    reach = len(x) if size is None else size - 1
    means = [x[max(0, t - reach) : t + 1 + (0 if causal else reach)].mean(0) for t in range(len(x))]
    return torch.stack(means) - x


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", [1, 3, 20, None])
def test_each_token_becomes_the_mean_around_it_less_itself(causal: bool, size: int | None) -> None:
    x = torch.randn(2, 9, D, dtype=torch.float64)
    mixer = make(causal, size)
    for row, y in enumerate(mixer(x, Layout.full(2, 9))[0]):
        assert_close(y, by_hand(x[row], causal, size))
    y, _ = mixer(x, Layout(POSITION, DOCUMENT))
    assert y.isfinite().all()
    for row in range(2):
        for one in range(int(DOCUMENT[row].max()) + 1):
            at = (DOCUMENT[row] == one).nonzero()[:, 0]
            assert_close(y[row, at], by_hand(x[row, at], causal, size))


def test_torchs_average_pooling_gives_the_same() -> None:
    x = torch.randn(2, 9, D, dtype=torch.float64)
    y = F.avg_pool1d(x.mT, 3, stride=1, padding=1, count_include_pad=False).mT - x
    assert_close(make(False, 2)(x, Layout.full(2, 9))[0], y)


@pytest.mark.parametrize("size", [3, None])
def test_any_split_gives_the_whole(size: int | None) -> None:
    mixer, x = make(True, size), torch.randn(2, 9, D, dtype=torch.float64)
    layout = Layout(POSITION, DOCUMENT)
    whole, _ = mixer(x, layout)
    for split in ((9,), (1,) * 9, (3, 6), (6, 1, 2)):
        state, start = mixer.empty_state(2, 9), 0
        for size_of in split:
            stop = start + size_of
            y, state = mixer(x[:, start:stop], layout.slice(start, stop), state)
            assert_close(y[layout.real[:, start:stop]], whole[:, start:stop][layout.real[:, start:stop]])
            start = stop


def test_later_tokens_change_no_running_mean() -> None:
    mixer, x = make(True, None), torch.randn(1, 9, D, dtype=torch.float64)
    other = torch.cat([x[:, :5], torch.randn(1, 4, D, dtype=torch.float64)], dim=1)
    layout = Layout.full(1, 9)
    assert torch.equal(mixer(x, layout)[0][:, :5], mixer(other, layout)[0][:, :5])


def test_a_running_mean_keeps_a_sum_and_a_window_its_tokens() -> None:
    assert make(True, None).cost(64).state_bytes == (D + 1) * 8
    assert make(True, 5).cost(64).state_bytes == 4 * ((D + 1) * 8 + 8)


def test_a_mean_in_bfloat16_is_summed_in_float32() -> None:
    mixer = Pooling(1, Mask(True), size=None).to(torch.bfloat16)
    x = torch.ones(1, 1000, 1, dtype=torch.bfloat16)
    y, state = mixer(x, Layout.full(1, 1000), mixer.empty_state(1, 1000))
    assert not y.any()
    assert state.total.dtype == torch.float32
    assert state.total[0, 0] == 1000


def test_what_it_can_not_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^size must be at least 1, or null for the whole document, but got 0\.$"):
        make(True, 0)
    with pytest.raises(
        ValueError, match=r"^mask must be causal to go on from a state, but this Pooling reads both ways\.$"
    ):
        make(False, 2).empty_state(1, 1)

    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    with pytest.raises(
        ValueError, match=r"^mask must be causal or full for Pooling, which has its own reach, but got Odd\.$"
    ):
        Pooling(D, Odd(True))
