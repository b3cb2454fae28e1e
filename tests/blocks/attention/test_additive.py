"""Additive attention against Bahdanau's formula, and what it can not host."""

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.additive import AdditiveAttention
from blocks.contracts import AttentionPosition, Layout, Memory
from blocks.mask.causal import Causal
from blocks.mask.full import Full

B, T, D = 2, 6, 8


class Turning(AttentionPosition):
    def rotate(self, x, layout, role):
        return x


class Remarking(AttentionPosition):
    def value_bias(self, p, q_layout, k_layout):
        return None


class Nearer(AttentionPosition):
    def bias(self, q, k, q_layout, k_layout):
        return -(q_layout.position[:, :, None] - k_layout.position[:, None]).abs()[:, None].to(q.dtype)


@pytest.mark.parametrize("position", [None, Nearer])
def test_matches_a_loop_over_pairs(position):
    mixer = AdditiveAttention(D, Causal(True), position, width=5).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for b in range(B):
        for t in range(T):
            scores = []
            for s in range(t + 1):
                hidden = torch.tanh(mixer.to_q.weight @ x[b, t] + mixer.to_k.weight @ x[b, s])
                scores.append(hidden @ mixer.fit[:, 0] - (t - s if position else 0))
            expected[b, t] = torch.stack(scores).softmax(0) @ x[b, : t + 1]
    assert_close(mixer(x, Layout.full(B, T))[0], expected)


def test_reads_a_memory():
    mixer = AdditiveAttention(D, Full(False), None)
    x, memory = torch.randn(B, T, D), torch.randn(B, 4, D)
    y, _ = mixer(x, Layout.full(B, T), memory=Memory(memory, Layout.full(B, 4)))
    scores = torch.tanh(mixer.to_q(x)[:, :, None] + mixer.to_k(memory)[:, None]) @ mixer.fit
    assert_close(y, scores[..., 0].softmax(-1) @ memory)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (
            Turning,
            "position must not turn queries and keys for AdditiveAttention, whose scores are no products of "
            "queries and keys, but got Turning.",
        ),
        (
            Remarking,
            "position must not add to the values for AdditiveAttention, whose values are whole tokens, "
            "but got Remarking.",
        ),
    ],
)
def test_it_refuses(position, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        AdditiveAttention(D, Full(False), position)
    assert str(refusal.value) == message


def test_it_refuses_no_width():
    with pytest.raises(ValueError, match=r"^width must be at least 1, but got 0\.$"):
        AdditiveAttention(D, Full(False), None, width=0)


@pytest.mark.parametrize("dropout", [-0.5, 1.0])
def test_it_drops_a_share(dropout):
    with pytest.raises(ValueError, match=rf"^dropout must be at least 0 and less than 1, but got {dropout}\.$"):
        AdditiveAttention(D, Full(False), None, dropout=dropout)
