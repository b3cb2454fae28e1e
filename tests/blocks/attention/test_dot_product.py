"""Dot-product and bilinear attention against their definition on the tokens themselves."""

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.bilinear import BilinearAttention
from blocks.attention.dot_product import DotProductAttention
from blocks.contracts import Layout, Memory
from blocks.mask.causal import Causal
from blocks.mask.full import Full
from blocks.score.dot import DotScore

B, T, D = 2, 6, 8


def unscaled(n_heads, head_dim, /):
    return DotScore(n_heads, head_dim, scale=1.0)


@pytest.mark.parametrize("n_heads", [1, 2])
@pytest.mark.parametrize("kind", [DotProductAttention, BilinearAttention])
@pytest.mark.parametrize(("score", "scale"), [(unscaled, 1.0), (DotScore, None)], ids=["dot", "scaled"])
def test_tokens_are_queries_keys_and_values(kind, n_heads, score, scale):
    mixer = kind(D, Causal(True), None, n_heads=n_heads, score=score).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    width = D // n_heads
    scale = scale or width**-0.5
    queries = x if kind is DotProductAttention else mixer.to_q(x)
    expected = torch.zeros_like(x)
    for b in range(B):
        for t in range(T):
            for h in range(n_heads):
                part = slice(h * width, (h + 1) * width)
                weights = (x[b, : t + 1, part] @ queries[b, t, part] * scale).softmax(0)
                expected[b, t, part] = weights @ x[b, : t + 1, part]
    assert_close(mixer(x, Layout.full(B, T))[0], expected)


def test_dot_product_learns_nothing():
    assert not list(DotProductAttention(D, Full(False), None).parameters())
    assert DotProductAttention(D, Full(False), None).cost(10).parameters == 0


def test_a_memory_is_read_as_it_is():
    x, memory = torch.randn(B, T, D), torch.randn(B, 4, D)
    mixer = DotProductAttention(D, Full(False), None, score=unscaled)
    y, _ = mixer(x, Layout.full(B, T), memory=Memory(memory, Layout.full(B, 4)))
    assert_close(y, (x @ memory.transpose(1, 2)).softmax(-1) @ memory)


@pytest.mark.parametrize("kind", [DotProductAttention, BilinearAttention])
def test_heads_must_divide(kind):
    with pytest.raises(ValueError, match=r"^d_model must be a multiple of n_heads, but got 8 and 3\.$"):
        kind(D, Full(False), None, n_heads=3)
