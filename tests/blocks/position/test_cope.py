"""Contextual position against its equations, gate by gate, and the masks it demands."""

import math

import pytest
import torch

from blocks.contracts import Layout, Mask
from blocks.position.cope import Cope


class Near(Mask):
    """Hides more than the future."""

    def sees(self, q, k):
        return q.position - k.position < 2


@pytest.mark.parametrize("positions", [3, 64])
def test_counts_gates_and_interpolates_between_vectors(positions):
    B, T, H, G, K = 2, 7, 4, 2, 8
    cope, layout = Cope(H, K, positions=positions).double(), Layout.full(B, T)
    with torch.no_grad():
        cope.table.normal_()
    q, k = torch.randn(B, T, H, K, dtype=torch.float64), torch.randn(B, T, G, K, dtype=torch.float64)
    bias = cope.bias(q, k, layout, layout)
    for b in range(B):
        for h in range(H):
            for i in range(T):
                for j in range(i + 1):
                    products = [(q[b, i, h] @ k[b, t, h // 2]).item() for t in range(j, i + 1)]
                    count = sum(1 / (1 + math.exp(-p / K**0.5)) for p in products)
                    count = min(count, positions - 1)
                    low, high = math.floor(count), math.ceil(count)
                    vector = (high - count) * cope.table[:, low] + (1 - high + count) * cope.table[:, high]
                    vector = cope.table[:, low] if low == high else vector
                    assert bias[b, h, i, j].item() == pytest.approx((q[b, i, h] @ vector).item())


def test_keys_of_other_documents_are_not_counted():
    cope, q = Cope(2, 8), torch.randn(1, 6, 2, 8)
    packed = Layout.packed(torch.tensor([[0, 0, 0, 1, 1, 1]]))
    apart = cope.count(q[:, 3:], q[:, 3:], *[Layout.full(1, 3)] * 2)
    torch.testing.assert_close(cope.count(q, q, packed, packed)[..., 3:, 3:], apart)


def test_gates_learn_through_the_counts():
    cope, layout = Cope(1, 8), Layout.full(1, 4)
    with torch.no_grad():
        cope.table.normal_()
    k = torch.randn(1, 4, 1, 8, requires_grad=True)
    cope.bias(torch.randn(1, 4, 1, 8), k, layout, layout)[0, 0, 3, 0].backward()
    assert k.grad.abs().amax(dim=(0, 2, 3)).min() > 0


@pytest.mark.parametrize(("mask", "name"), [(Mask(False), "Mask"), (Near(True), "Near")])
def test_refuses_masks_that_leave_gaps_or_look_ahead(mask, name):
    sentence = (
        r"mask must be causal, and hide nothing else, for Cope, which counts all tokens from a key to its query, "
        rf"but got {name}\."
    )
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Cope(1, 8).admit(mask)


def test_refuses_a_single_vector():
    with pytest.raises(ValueError, match=r"^positions must be at least 2, but got 1\.$"):
        Cope(1, 8, positions=1)
