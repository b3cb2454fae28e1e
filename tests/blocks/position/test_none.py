"""No position: attention is left as it is."""

import torch

from blocks.contracts import Layout
from blocks.position.none import NoPosition


def test_does_nothing(attend):
    none, layout = NoPosition(2, 4), Layout.full(1, 3)
    q = torch.randn(1, 3, 2, 4)
    assert none.rotate(q, layout, "query") is q
    assert none.bias(q, q, layout, layout) is None
    assert none.value_bias(torch.ones(1, 2, 3, 3), layout, layout) is None
    assert none.acts == frozenset()


def test_tokens_moved_around_give_outputs_moved_along(attend):
    none, layout, order = NoPosition(2, 4), Layout.full(1, 6), torch.randperm(6)
    q, k, v = torch.randn(3, 1, 6, 2, 4, dtype=torch.float64)
    moved = attend(none, q[:, order], k[:, order], v[:, order], layout, False)
    torch.testing.assert_close(moved, attend(none, q, k, v, layout, False)[:, order])
