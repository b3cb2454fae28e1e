"""Relative linear position attention against equations 3 to 5 of the paper, pair by pair."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.position.shaw import Shaw


@pytest.mark.parametrize("causal", [True, False])
def test_keys_and_values_gain_the_vector_of_their_distance(causal, attend):
    B, T, H, K, clip = 2, 7, 4, 8, 3
    shaw, layout = Shaw(H, K, clip=clip).double(), Layout.full(B, T)
    q, k, v = (torch.randn(B, T, n, K, dtype=torch.float64) for n in (H, 2, 2))
    found = attend(shaw, q, k, v, layout, causal)
    for b in range(B):
        for h in range(H):
            for i in range(T):
                seen = range(i + 1) if causal else range(T)
                row = {j: max(-clip, min(clip, j - i)) + clip for j in seen}
                keys = [k[b, j, h // 2] + shaw.keys[row[j]] for j in seen]
                values = [v[b, j, h // 2] + shaw.values[row[j]] for j in seen]
                weights = torch.stack([q[b, i, h] @ key / K**0.5 for key in keys]).softmax(0)
                assert_close(found[b, i, h], sum(w * value for w, value in zip(weights, values, strict=True)))


def test_beyond_the_clip_all_distances_are_alike():
    shaw, layout, q = Shaw(2, 8, clip=2), Layout.full(1, 9), torch.randn(1, 9, 2, 8)
    bias = shaw.bias(q, q, layout, layout)
    assert torch.equal(bias[..., 8, 0], bias[..., 8, 6])
    assert not torch.equal(bias[..., 8, 6], bias[..., 8, 7])


def test_layers_of_one_forward_share_the_distances():
    shaw, layout, q = Shaw(2, 8), Layout.full(1, 9).fresh(), torch.randn(1, 9, 2, 8)
    shaw.bias(q, q, layout, layout)
    (row,) = layout.scratch.kept.values()
    assert not row.requires_grad
    shaw.value_bias(torch.rand(1, 2, 9, 9), layout, layout)
    assert len(layout.scratch.kept) == 1


def test_refuses_a_clip_that_leaves_nothing():
    with pytest.raises(ValueError, match=r"^clip must be positive, but got 0\.$"):
        Shaw(1, 8, clip=0)
