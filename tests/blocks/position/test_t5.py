"""T5's bias against the published buckets, in both directions."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.position.t5 import T5


def bucket(ahead, buckets, max_distance, both_ways):
    """As the paper tells it: exact up to half, then logarithmic up to ``max_distance``, then all the same."""
    if both_ways:
        buckets //= 2
        if ahead > 0:
            return buckets + bucket(-ahead, buckets, max_distance, False)
    distance, exact = max(-ahead, 0), buckets // 2
    if distance < exact:
        return distance
    steps = math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact)
    return min(exact + int(steps + 1e-6), buckets - 1)


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 40), (8, 20)])
def test_each_pair_gets_the_number_of_its_bucket(both_ways, buckets, max_distance):
    t5 = T5(3, 8, buckets=buckets, max_distance=max_distance)
    t5.admit(Mask(not both_ways))
    layout, q = Layout.full(2, 48), torch.randn(2, 48, 3, 8)
    bias = t5.bias(q, q, layout, layout)
    for i in range(48):
        for j in range(48):
            row = bucket(j - i, buckets, max_distance, both_ways)
            assert torch.equal(bias[0, :, i, j], t5.table[:, row])


@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_are_those_of_transformers(both_ways):
    theirs = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention._relative_position_bucket
    t5, ahead = T5(1, 8), torch.arange(-300, 300)
    t5.admit(Mask(not both_ways))
    assert torch.equal(t5.bucket(ahead), theirs(ahead, bidirectional=both_ways))


def test_one_mask_that_lets_queries_look_ahead_is_enough_for_both_ways():
    t5 = T5(1, 8)
    t5.admit(Mask(True))
    assert t5.bucket(torch.tensor([-20, -1, 0, 1])).tolist() == [17, 1, 0, 0]
    t5.admit(Mask(False))
    t5.admit(Mask(True))
    assert t5.bucket(torch.tensor([-20, -1, 0, 1])).tolist() == [10, 1, 0, 17]


def test_gradients_gather_in_the_buckets():
    t5, layout, q = T5(2, 8, buckets=4, max_distance=4), Layout.full(1, 4), torch.randn(1, 4, 2, 8)
    t5.bias(q, q, layout, layout).sum().backward()
    assert_close(t5.table.grad, torch.tensor([[10.0, 3.0, 2.0, 1.0]] * 2))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(T5, 1, 8, buckets=30), r"buckets must be a multiple of 4, but got 30\."),
        (partial(T5, 1, 8, max_distance=16), r"max_distance must be above half of the 32 buckets, but got 16\."),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()
