"""Performer is held to its random features pair by pair, and they to softmax."""

import math

import pytest
import torch
from torch import Tensor

from blocks.contracts import Layout, Mask
from blocks.linear.performer import Performer, draw_directions


def by_pairs(mixer: Performer, x: Tensor) -> Tensor:
    """For each head the weights ``phi(q).phi(k)``, ``phi(x) = exp(w.x - |x|^2 / 2)``, and the mean of the values."""
    w = draw_directions(mixer.n_features, mixer.head_dim, 0).double()
    q, k, v = (to(x).chunk(mixer.n_heads, -1) for to in (mixer.to_q, mixer.to_k, mixer.to_v))
    heads = []
    for h in range(mixer.n_heads):
        a, b = (t[h] / mixer.head_dim**0.25 for t in (q, k))
        phi_a, phi_b = ((t @ w.T - t.square().sum(-1, keepdim=True) / 2).exp() for t in (a, b))
        weight = phi_a @ phi_b.T
        weight = weight.tril() if mixer.mask.causal else weight
        heads.append(weight / weight.sum(-1, keepdim=True) @ v[h])
    return mixer.to_out(torch.cat(heads, -1))


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_mean_weighted_by_its_random_features(causal, follows, monkeypatch):
    mixer = Performer(16, Mask(causal), n_heads=2).double()
    follows(mixer, lambda x: by_pairs(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(Performer(16, Mask(True), n_heads=2).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(Performer(16, Mask(causal), n_heads=2))


@pytest.mark.parametrize("causal", [True, False])
def test_with_many_features_it_is_softmax_attention(causal):
    x = 0.7 * torch.randn(1, 40, 8, dtype=torch.float64)
    errors = []
    for n_features in (8, 256, 8192):
        torch.manual_seed(0)
        mixer = Performer(8, Mask(causal), n_heads=1, n_features=n_features).double()
        q, k, v = mixer.to_q(x), mixer.to_k(x), mixer.to_v(x)
        softmax = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        errors.append(((mixer(x, Layout.full(1, 40))[0] - mixer.to_out(softmax)).norm() / softmax.norm()).item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def test_directions_are_at_right_angles_and_as_long_as_normal_vectors():
    w = draw_directions(3000 * 16, 16, seed=1)
    for block in w[:64].split(16):
        cosines = (block @ block.T) / (block.norm(dim=-1)[:, None] * block.norm(dim=-1))
        torch.testing.assert_close(cosines, torch.eye(16), atol=1e-5, rtol=0)
    assert abs(w.square().sum(-1).mean() - 16) < 0.1
    assert w.unflatten(0, (-1, 16)).mean(0).abs().max() < 0.1  # no row of a block prefers a side
    assert draw_directions(5, 16, seed=1).shape == (5, 16)


def test_directions_are_drawn_from_the_seed_saved_and_never_rounded():
    one, same, other = (Performer(16, Mask(True), n_heads=2, seed=seed) for seed in (0, 0, 1))
    assert (one.directions == same.directions).all()
    assert not (one.directions == other.directions).any()
    other.load_state_dict(one.state_dict())
    assert (one.directions == other.bfloat16().directions).all()
    assert one.directions.view(torch.float32).std() > 0.5
    assert Performer(64, Mask(True), n_heads=2).n_features == int(32 * math.log(32))


def test_it_is_built_where_the_default_device_is():
    with torch.device("meta"):
        assert Performer(16, Mask(True), n_heads=2).directions.is_meta


@pytest.mark.parametrize("causal", [True, False])
def test_it_costs_what_it_says(causal, costs_what_it_says):
    costs_what_it_says(Performer(16, Mask(causal), n_heads=2, n_features=20))


def test_what_it_can_not_do_is_refused(refused):
    with refused("d_model must be a multiple of n_heads, but got 16 and 3."):
        Performer(16, Mask(True), n_heads=3)
    with refused("n_features must be at least 1, but got 0."):
        Performer(16, Mask(True), n_features=0)
    with refused("mask must be causal for Performer to go on from a past, but it reads both ways."):
        Performer(16, Mask(False)).empty_state(1, 1)
