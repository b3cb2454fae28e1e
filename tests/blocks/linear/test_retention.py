"""Retention is held to its sum over pairs, with the fading and the turning that the paper prints."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Layout, Mask
from blocks.linear.retention import Retention


def by_pairs(mixer: Retention, x: Tensor) -> Tensor:
    """Each head's ``sum_s gamma^(t-s) Re(q_t e^(i t theta) conj(k_s e^(i s theta))) v_s``, then norm and gate."""
    length, n_pairs = len(x), mixer.head_dim // 2
    q, k, v = (to(x).chunk(mixer.n_heads, -1) for to in (mixer.to_q, mixer.to_k, mixer.to_v))
    distance = (torch.arange(length)[:, None] - torch.arange(length)).double()
    heads = []
    for h in range(mixer.n_heads):
        fading = (1 - 2.0 ** (-5 - h)) ** distance.abs()
        fading = fading.tril() if mixer.mask.causal else (fading + torch.eye(length)) / 2
        score = torch.zeros(length, length, dtype=x.dtype)
        for i in range(n_pairs):
            theta = 10_000 ** (-i / (n_pairs - 1))
            a, b = (torch.complex(p[h][:, i], p[h][:, i + n_pairs]) for p in (q, k))
            score += (torch.exp(1j * theta * distance) * torch.outer(a, b.conj())).real
        read = (fading * score / math.sqrt(mixer.head_dim)) @ v[h]
        heads.append((read - read.mean(-1, keepdim=True)) / (read.var(-1, keepdim=True, correction=0) + 1e-5).sqrt())
    return mixer.to_out(torch.cat(heads, -1) * F.silu(mixer.to_gate(x)))


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_its_published_sum(causal, follows):
    mixer = Retention(16, Mask(causal), n_heads=2).double()
    follows(mixer, lambda x: by_pairs(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(Retention(16, Mask(True), n_heads=2).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(Retention(16, Mask(causal), n_heads=2))


def test_only_the_distance_between_tokens_counts():
    mixer = Retention(16, Mask(True), n_heads=2).double()
    x = torch.randn(1, 20, 16, dtype=torch.float64)
    late = Layout(torch.arange(1000, 1020)[None], torch.zeros(1, 20, dtype=torch.long))
    torch.testing.assert_close(mixer(x, late)[0], mixer(x, Layout.full(1, 20))[0], rtol=1e-9, atol=1e-9)


def test_it_costs_what_it_says(costs_what_it_says):
    costs_what_it_says(Retention(16, Mask(True), n_heads=2))
    costs_what_it_says(Retention(16, Mask(False), n_heads=2, expand_v=1))
    assert Retention(16, Mask(True), n_heads=2).cost(100).state_bytes == 4 * 2 * 8 * 16


def test_what_it_can_not_do_is_refused(refused):
    with refused("d_model must be a multiple of 2 n_heads, but got 24 and 8 heads."):
        Retention(24, Mask(True))
    with refused("mask must be causal for Retention to go on from a past, but it reads both ways."):
        Retention(16, Mask(False)).empty_state(1, 1)
