"""Gated DeltaNet is held to its recurrence, a token at a time, written as the published matrix product."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Mask
from blocks.linear.gated_delta_net import GatedDeltaNet


def one_by_one(mixer: GatedDeltaNet, x: Tensor) -> Tensor:
    """``S <- a (I - b k k^T) S + b k v^T`` with ``a = exp(-exp(A_log) softplus(dt + dt_bias))``."""
    parts = torch.cat([mixer.to_q(x), mixer.to_k(x), mixer.to_v(x)], -1)
    beta, decay = mixer.to_beta(x).sigmoid(), mixer.to_decay
    a = torch.exp(-decay.A_log.exp() * torch.log(1 + torch.exp(decay.to_dt(x) + decay.dt_bias)))

    def read(parts, beta, a):
        padded = F.pad(parts, (0, 0, 3, 0))
        s = torch.zeros(mixer.n_heads, mixer.key_dim, mixer.value_dim, dtype=x.dtype)
        out = []
        for t in range(len(x)):
            mixed = F.silu((mixer.conv.weight.flip(0) * padded[t : t + 4]).sum(0))
            keys = mixer.n_heads * mixer.key_dim
            q, k, v = (p.reshape(mixer.n_heads, -1) for p in mixed.split([keys, keys, len(mixed) - 2 * keys]))
            q, k = (p / (p.square().sum(-1, keepdim=True) + 1e-6).sqrt() for p in (q, k))
            b = beta[t, :, None, None]
            keep = a[t, :, None, None] * (torch.eye(mixer.key_dim) - b * k[:, :, None] * k[:, None])
            s = keep @ s + b * k[:, :, None] * v[:, None]
            out.append((q[:, None] @ s)[:, 0] / mixer.key_dim**0.5)
        return torch.stack(out)

    y = read(parts, beta, a)
    if not mixer.mask.causal:
        y = (y + read(parts.flip(0), beta.flip(0), a.flip(0)).flip(0)) / 2
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm.weight
    return mixer.to_out(y.flatten(1) * F.silu(mixer.to_gate(x)))


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_its_published_recurrence(causal, follows):
    mixer = GatedDeltaNet(16, Mask(causal), n_heads=2).double()
    torch.nn.init.normal_(mixer.norm.weight)
    torch.nn.init.normal_(mixer.to_decay.dt_bias)
    follows(mixer, lambda x: one_by_one(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(GatedDeltaNet(16, Mask(True), n_heads=2, head_dim=4, expand_v=1).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(GatedDeltaNet(16, Mask(causal), n_heads=2))


def test_its_widths_are_the_published_ones():
    mixer = GatedDeltaNet(64, Mask(True))
    assert (mixer.key_dim, mixer.value_dim) == (12, 24)
    assert mixer.to_q.weight.numel() + mixer.to_v.weight.numel() + mixer.to_out.weight.numel() == 15 * 64 * 64 // 4


def test_it_costs_what_it_says(costs_what_it_says):
    costs_what_it_says(GatedDeltaNet(16, Mask(True), n_heads=2))
    costs_what_it_says(GatedDeltaNet(16, Mask(False), n_heads=2, head_dim=5))
    assert GatedDeltaNet(16, Mask(True), n_heads=2).cost(100).state_bytes == 4 * (2 * 6 * 12 + 3 * 48)


def test_what_it_can_not_do_is_refused(refused):
    with refused(
        "3 d_model must be a multiple of 4 n_heads, but got a d_model of 18 and 4 heads. Or choose a head_dim."
    ):
        GatedDeltaNet(18, Mask(True))
    with refused("conv_size must be at least 1, the token itself, but got 0."):
        GatedDeltaNet(16, Mask(True), conv_size=0)
    with refused("mask must be causal for GatedDeltaNet to go on from a past, but it reads both ways."):
        GatedDeltaNet(16, Mask(False)).empty_state(1, 1)
