"""Gated linear attention is held to its recurrence, a token at a time."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Layout, Mask
from blocks.linear.gated_linear import GatedLinear


def one_by_one(mixer: GatedLinear, x: Tensor) -> Tensor:
    """``S <- diag(a) S + k v^T`` with ``a = sigmoid(.)^(1/16)``, read by q / sqrt(K), normed by head, gated."""
    q, k, v, a = (
        to(x).unflatten(-1, (mixer.n_heads, -1)) for to in (mixer.to_q, mixer.to_k, mixer.to_v, mixer.to_decay)
    )
    a = a.sigmoid() ** (1 / 16)

    def read(order):
        s, out = torch.zeros(mixer.n_heads, mixer.key_dim, mixer.value_dim, dtype=x.dtype), {}
        for t in order:
            s = a[t, :, :, None] * s + k[t, :, :, None] * v[t, :, None, :]
            out[t] = (q[t, :, :, None] * s).sum(1) / mixer.key_dim**0.5
        return torch.stack([out[t] for t in range(len(x))])

    y = read(range(len(x)))
    if not mixer.mask.causal:
        y = (y + read(reversed(range(len(x))))) / 2
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm.weight
    return mixer.to_out(y.flatten(1) * F.silu(mixer.to_gate(x)))


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_its_published_recurrence(causal, follows):
    mixer = GatedLinear(16, Mask(causal), n_heads=2).double()
    torch.nn.init.normal_(mixer.norm.weight)
    mixer.to_decay[1].weight.data.mul_(10)
    follows(mixer, lambda x: one_by_one(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(GatedLinear(16, Mask(True), n_heads=2).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(GatedLinear(16, Mask(causal), n_heads=2))


def test_a_greater_temperature_forgets_less():
    states = []
    for temperature in (1.0, 100.0):
        torch.manual_seed(0)
        mixer = GatedLinear(16, Mask(True), n_heads=2, temperature=temperature)
        x = torch.zeros(1, 30, 16)
        x[:, 0] = 1.0
        states.append(mixer(x, Layout.full(1, 30), mixer.empty_state(1, 30))[1].s.norm())
    assert states[0] < 1e-3 * states[1]


def test_it_costs_what_it_says(costs_what_it_says):
    costs_what_it_says(GatedLinear(16, Mask(True), n_heads=2))
    costs_what_it_says(GatedLinear(16, Mask(False), n_heads=1, rank=3))
    assert GatedLinear(16, Mask(True), n_heads=2).cost(100).state_bytes == 4 * 2 * 4 * 8


def test_what_it_can_not_do_is_refused(refused):
    with refused("d_model must be a multiple of 2 n_heads, but got 18 and 4 heads."):
        GatedLinear(18, Mask(True))
    with refused("rank and temperature must be positive, but got 0 and 16.0."):
        GatedLinear(16, Mask(True), rank=0)
    with refused("mask must be causal for GatedLinear to go on from a past, but it reads both ways."):
        GatedLinear(16, Mask(False)).empty_state(1, 1)
