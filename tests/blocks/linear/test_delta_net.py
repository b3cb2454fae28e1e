"""DeltaNet is held to its recurrence, a token at a time, written as the published matrix product."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Layout, Mask
from blocks.linear.delta_net import DeltaNet


def one_by_one(mixer: DeltaNet, x: Tensor) -> Tensor:
    """``S <- (I - b k k^T) S + b k v^T``; queries, keys, values from a causal convolution of either direction."""
    parts = torch.cat([mixer.to_q(x), mixer.to_k(x), mixer.to_v(x)], -1)
    beta = mixer.max_beta * mixer.to_beta(x).sigmoid()

    def read(parts, beta):
        size = len(mixer.conv.weight)
        padded = F.pad(parts, (0, 0, size - 1, 0))
        s = torch.zeros(mixer.n_heads, mixer.head_dim, mixer.head_dim, dtype=x.dtype)
        out = []
        for t in range(len(x)):
            mixed = F.silu((mixer.conv.weight.flip(0) * padded[t : t + size]).sum(0))
            q, k, v = mixed.reshape(3, mixer.n_heads, mixer.head_dim)
            q, k = (a / (a.square().sum(-1, keepdim=True) + 1e-6).sqrt() for a in (q, k))
            b = beta[t, :, None, None]
            s = (torch.eye(mixer.head_dim) - b * k[:, :, None] * k[:, None]) @ s + b * k[:, :, None] * v[:, None]
            out.append((q[:, None] @ s)[:, 0] / mixer.head_dim**0.5)
        return torch.stack(out)

    y = read(parts, beta)
    if not mixer.mask.causal:
        y = (y + read(parts.flip(0), beta.flip(0)).flip(0)) / 2
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm.weight
    return mixer.to_out(y.flatten(1))


@pytest.mark.parametrize("max_beta", [1.0, 2.0])
@pytest.mark.parametrize("conv_size", [1, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_it_is_its_published_recurrence(causal, conv_size, max_beta, follows):
    mixer = DeltaNet(16, Mask(causal), n_heads=2, conv_size=conv_size, max_beta=max_beta).double()
    torch.nn.init.normal_(mixer.norm.weight)
    follows(mixer, lambda x: one_by_one(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(DeltaNet(16, Mask(True), n_heads=2).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(DeltaNet(16, Mask(causal), n_heads=2))


def test_a_key_written_again_recalls_only_its_last_value():
    mixer = DeltaNet(4, Mask(True), n_heads=1, conv_size=1).double()
    torch.nn.init.zeros_(mixer.to_beta.weight)
    mixer.max_beta = 2.0  # times sigmoid(0): all the way
    x = torch.zeros(1, 3, 4, dtype=torch.float64)
    x[0, :, 0] = 1.0
    x[0, :, 1] = torch.tensor([1.0, 5.0, 9.0])
    mixer.to_k.weight.data.zero_()[0, 0] = 1.0
    mixer.to_v.weight.data.zero_()[0, 1] = 1.0
    mixer.conv.weight.data.fill_(1.0)
    _, state = mixer(x, Layout.full(1, 3), mixer.empty_state(1, 3))
    torch.testing.assert_close(state.s[0, 0, 0, 0], F.silu(torch.tensor(9.0).double()), rtol=1e-4, atol=1e-4)


def test_it_costs_what_it_says(costs_what_it_says):
    costs_what_it_says(DeltaNet(16, Mask(True), n_heads=2))
    costs_what_it_says(DeltaNet(16, Mask(False), n_heads=1))
    assert DeltaNet(16, Mask(True), n_heads=2).cost(100).state_bytes == 4 * (2 * 8 * 8 + 3 * 48)


def test_what_it_can_not_do_is_refused(refused):
    with refused("d_model must be a multiple of n_heads, but got 16 and 3."):
        DeltaNet(16, Mask(True), n_heads=3)
    with refused("max_beta must be above 0 and at most 2, where memories grow, but got 2.5."):
        DeltaNet(16, Mask(True), max_beta=2.5)
    with refused("mask must be causal for DeltaNet to go on from a past, but it reads both ways."):
        DeltaNet(16, Mask(False)).empty_state(1, 1)
