"""Differential attention against its definition, and what it does to common noise."""

import math

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.differential import DifferentialAttention
from blocks.contracts import AttentionPosition, Layout
from blocks.mask.causal import Causal
from blocks.mask.full import Full

B, T, D, H, K = 2, 6, 24, 3, 4


class Remarking(AttentionPosition):
    def value_bias(self, p, q_layout, k_layout):
        return None


@pytest.mark.parametrize("n_kv_heads", [1, 3])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_matches_a_loop_over_heads_and_tokens(n_kv_heads, backend):
    choices = {"n_heads": H, "n_kv_heads": n_kv_heads, "start": 0.3, "backend": backend}
    mixer = DifferentialAttention(D, Causal(True), None, **choices).double()
    x = torch.randn(B, T, D, dtype=torch.float64)
    q = mixer.to_q(x).view(B, T, n_kv_heads, 2, -1, K).transpose(3, 4).reshape(B, T, H, 2, K)
    k, v = mixer.to_k(x).view(B, T, n_kv_heads, 2, K), mixer.to_v(x).view(B, T, n_kv_heads, 2 * K)
    (q1, k1), (q2, k2) = mixer.lambdas.detach()
    balance = math.exp(q1 @ k1) - math.exp(q2 @ k2) + 0.3
    out = torch.zeros(B, T, H, 2 * K, dtype=x.dtype)
    for b in range(B):
        for t in range(T):
            for h in range(H):
                g = h * n_kv_heads // H
                one, other = ((k[b, : t + 1, g, i] @ q[b, t, h, i] / 2).softmax(0) for i in (0, 1))
                y = (one - balance * other) @ v[b, : t + 1, g]
                y = y / (y.square().mean() + 1e-5).sqrt() * mixer.norm.weight
                out[b, t, h] = y * (1 - 0.3)
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(out.flatten(2)))


def test_lambda_starts_near_its_start():
    balances = torch.stack([DifferentialAttention(64, Full(False), None, start=0.5).balance() for _ in range(50)])
    assert abs(balances.mean() - 0.5) < 0.05
    assert balances.std() > 0


def test_what_both_attend_to_cancels():
    """With equal queries and keys and a lambda of one, nothing is left to normalise."""
    mixer = DifferentialAttention(D, Full(False), None, n_heads=H, start=0.5).double()
    with torch.no_grad():
        for to in (mixer.to_q, mixer.to_k):
            to.weight.view(H, 2, K, D)[:, 1] = to.weight.view(H, 2, K, D)[:, 0]
        mixer.lambdas.zero_()
        mixer.lambdas[0, :, 0] = math.sqrt(math.log(1.5))  # e^ln 1.5 - 1 + 0.5 = 1
    assert mixer.balance().item() == pytest.approx(1.0)
    assert mixer(torch.randn(B, T, D, dtype=torch.float64), Layout.full(B, T))[0].abs().max() < 1e-9


@pytest.mark.parametrize(
    ("choices", "position", "message"),
    [
        ({"n_heads": 5}, None, "d_model must be a multiple of 2 n_heads, but got 24 and 5."),
        ({"n_heads": 3, "n_kv_heads": 2}, None, "n_heads must be a multiple of n_kv_heads, but got 3 and 2."),
        ({"n_heads": 3, "start": 1.0}, None, "start must be between 0 and 1, but got 1.0."),
        (
            {"n_heads": 3},
            Remarking,
            "position must not add to the values for DifferentialAttention, whose values are twice as wide as "
            "its keys, but got Remarking.",
        ),
    ],
)
def test_it_refuses(choices, position, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        DifferentialAttention(D, Full(False), position, **choices)
    assert str(refusal.value) == message
