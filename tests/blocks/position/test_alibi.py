"""ALiBi against its definition pair by pair, and the slopes that the authors' code prints."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import PAD, Layout
from blocks.position.alibi import Alibi


def test_subtracts_slope_times_distance():
    q = k = torch.randn(1, 5, 4, 8)
    bias = Alibi(4, 8).bias(q, k, *[Layout.full(1, 5)] * 2)
    for head, slope in enumerate([1 / 4, 1 / 16, 1 / 64, 1 / 256]):
        for i in range(5):
            for j in range(5):
                assert bias[0, head, i, j].item() == -slope * abs(i - j)


@pytest.mark.parametrize(
    ("n_heads", "slopes"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (8, [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8]),
        (12, [*(2**-i for i in range(1, 9)), *(2 ** -(i / 2) for i in (1, 3, 5, 7))]),
    ],
)
def test_slopes_are_the_published_ones(n_heads, slopes):
    assert_close(Alibi(n_heads, 8).slopes(), torch.tensor(slopes))


def test_any_part_of_the_pairs_is_that_part_of_the_whole():
    """In any order, across packed documents, with padding, and where the row is known to be whole."""
    alibi, q, k = Alibi(3, 8), torch.randn(2, 9, 3, 8), torch.randn(2, 9, 3, 8)
    whole = Layout.full(2, 9)
    full = alibi.bias(q, k, whole, whole).expand(2, -1, -1, -1)
    order = torch.randperm(9)
    keys = Layout(whole.position[:, order], whole.document[:, order])
    assert_close(alibi.bias(q[:, 4:7], k[:, order], whole.slice(4, 7), keys), full[:, :, 4:7][..., order])
    packed = Layout.packed(torch.tensor([[0, 0, 0, 0, 1, 1, 1, PAD, PAD]] * 2))
    bias = alibi.bias(q, k, packed, packed)
    assert_close(bias[:, :, 4:7, 4:7], full[:, :, :3, :3])
    assert bias.isfinite().all()


def test_layers_of_one_forward_share_the_bias():
    alibi, q, layout = Alibi(2, 8), torch.randn(1, 4, 2, 8), Layout.full(1, 4).fresh()
    once = alibi.bias(q, q, layout, layout)
    assert alibi.bias(q, q, layout, layout) is once
    assert alibi.bias(q[:, 2:], q, layout.slice(2, 4), layout).shape == (1, 2, 2, 4)


def test_distances_stay_exact_in_half_precision():
    """In bfloat16 positions 4093 and 4095 would be the same."""
    q = torch.randn(1, 1, 2, 8, dtype=torch.bfloat16)
    there, here = (Layout(torch.tensor([[p]]), torch.tensor([[0]])) for p in (4095, 4093))
    bias = Alibi(2, 8).to(torch.bfloat16).bias(q, q, there, here)
    assert_close(bias.flatten().float(), torch.tensor([-2 * 2**-4, -2 * 2**-8]))


def test_a_cached_decoder_step_attends_as_the_whole_does(attend):
    alibi, layout = Alibi(4, 8), Layout.full(2, 7)
    q, k, v = torch.randn(2, 7, 4, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8)
    assert_close(attend(alibi, q, k, v, layout, True)[:, 5:], attend(alibi, q, k, v, layout, True, start=5))
