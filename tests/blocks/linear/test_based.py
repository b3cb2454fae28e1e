"""Based is held to its weights, ``1 + q.k / sqrt(f) + (q.k)^2 / 2 f``, pair by pair."""

import pytest
import torch
from torch import Tensor

from blocks.contracts import Layout, Mask
from blocks.linear.based import Based


def by_pairs(mixer: Based, x: Tensor) -> Tensor:
    """For each head and query the weights of all keys, and the mean of their values."""
    q, k, v = (to(x).chunk(mixer.n_heads, -1) for to in (mixer.to_q, mixer.to_k, mixer.to_v))
    heads = []
    for h in range(mixer.n_heads):
        score = q[h] @ k[h].T / mixer.feature_dim**0.5
        weight = 1 + score + score**2 / 2
        weight = weight.tril() if mixer.mask.causal else weight
        heads.append(weight / weight.sum(-1, keepdim=True) @ v[h])
    return mixer.to_out(torch.cat(heads, -1))


@pytest.mark.parametrize("feature_dim", [1, 2, 5])
@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_mean_weighted_by_the_series(causal, feature_dim, follows, monkeypatch):
    mixer = Based(16, Mask(causal), n_heads=2, feature_dim=feature_dim).double()
    follows(mixer, lambda x: by_pairs(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(Based(16, Mask(True), n_heads=2, feature_dim=4).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(Based(16, Mask(causal), n_heads=2, feature_dim=4))


def test_near_zero_it_weighs_as_softmax_does():
    mixer = Based(8, Mask(True), n_heads=1, feature_dim=8).double()
    x = 0.1 * torch.randn(1, 30, 8, dtype=torch.float64)
    softmax = torch.nn.functional.scaled_dot_product_attention(
        mixer.to_q(x), mixer.to_k(x), mixer.to_v(x), is_causal=True
    )
    torch.testing.assert_close(mixer(x, Layout.full(1, 30))[0], mixer.to_out(softmax), rtol=1e-4, atol=1e-6)


def test_its_state_keeps_each_product_of_two_channels_once():
    assert Based(32, Mask(True), n_heads=2).empty_state(3, 10).s.shape == (3, 2, 1 + 16 + 136, 17)


@pytest.mark.parametrize("causal", [True, False])
def test_it_costs_what_it_says(causal, costs_what_it_says):
    costs_what_it_says(Based(16, Mask(causal), n_heads=2, feature_dim=4))


def test_what_it_can_not_do_is_refused(refused):
    with refused("d_model must be a multiple of n_heads, but got 16 and 3."):
        Based(16, Mask(True), n_heads=3)
    with refused("feature_dim must be at least 1, but got 0."):
        Based(16, Mask(True), feature_dim=0)
    with refused("mask must be causal for Based to go on from a past, but it reads both ways."):
        Based(16, Mask(False)).empty_state(1, 1)
