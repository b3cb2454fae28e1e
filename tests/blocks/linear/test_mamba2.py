"""Mamba-2 is held to its state-space recurrence, a token at a time, and to its published start."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import Mask
from blocks.linear.mamba2 import Mamba2

SMALL = {"d_state": 6, "head_dim": 8}


def one_by_one(mixer: Mamba2, x: Tensor) -> Tensor:
    """``h <- exp(dt A) h + dt B x``, ``y = C h + D x``, for each head and channel by itself."""
    parts = torch.cat([mixer.to_q(x), mixer.to_k(x), mixer.to_v(x)], -1)
    steps = torch.log(1 + torch.exp(mixer.to_decay.to_dt(x) + mixer.to_decay.dt_bias))
    rate = -mixer.to_decay.A_log.exp()

    def read(parts, steps):
        padded = F.pad(parts, (0, 0, 3, 0))
        h = torch.zeros(mixer.n_heads, mixer.d_state, mixer.head_dim, dtype=x.dtype)
        out = []
        for t in range(len(x)):
            mixed = F.silu((mixer.conv.weight.flip(0) * padded[t : t + 4]).sum(0) + mixer.conv.bias)
            n = mixer.n_groups * mixer.d_state
            c, b = mixed[:n].reshape(mixer.n_groups, -1), mixed[n : 2 * n].reshape(mixer.n_groups, -1)
            inner, new, y = mixed[2 * n :].reshape(mixer.n_heads, -1), [], []
            for head in range(mixer.n_heads):
                group = head // (mixer.n_heads // mixer.n_groups)
                dt = steps[t, head]
                new.append((dt * rate[head]).exp() * h[head] + dt * torch.outer(b[group], inner[head]))
                y.append(c[group] @ new[-1] + mixer.skip[head] * inner[head])
            h = torch.stack(new)
            out.append(torch.cat(y))
        return torch.stack(out)

    y = read(parts, steps)
    if not mixer.mask.causal:
        y = (y + read(parts.flip(0), steps.flip(0)).flip(0)) / 2
    y = y * F.silu(mixer.to_gate(x))
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm.weight
    return mixer.to_out(y)


@pytest.mark.parametrize("n_groups", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_it_is_its_published_recurrence(causal, n_groups, follows):
    mixer = Mamba2(16, Mask(causal), n_groups=n_groups, **SMALL).double()
    for p in (mixer.norm.weight, mixer.skip, mixer.to_decay.dt_bias):
        torch.nn.init.normal_(p)
    follows(mixer, lambda x: one_by_one(mixer, x))


def test_any_cut_of_a_row_gives_the_whole(goes_on):
    goes_on(Mamba2(16, Mask(True), **SMALL).double())
    goes_on(Mamba2(16, Mask(True), n_groups=2, conv_size=1, **SMALL).double())


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_finite_for_inputs_of_any_size(causal, survives):
    survives(Mamba2(16, Mask(causal), **SMALL))


def test_its_steps_and_rates_start_where_they_were_published():
    decay = Mamba2(2048, Mask(True), head_dim=4).to_decay
    steps, rates = F.softplus(decay.dt_bias), decay.A_log.exp()
    assert 0.00099 < steps.min() < 0.0015
    assert 0.07 < steps.max() < 0.101
    assert abs(steps.log().mean() - torch.tensor(0.01).log()) < 0.2
    assert 0.99 < rates.min() < 1.5
    assert 15 < rates.max() < 16.01


def test_it_costs_what_it_says(costs_what_it_says):
    for n_groups in (1, 2):
        costs_what_it_says(Mamba2(16, Mask(True), n_groups=n_groups, **SMALL))
    costs_what_it_says(Mamba2(16, Mask(False), **SMALL))
    assert Mamba2(16, Mask(True), **SMALL).cost(100).state_bytes == 4 * (4 * 6 * 8 + 3 * 44)


def test_what_it_can_not_do_is_refused(refused):
    with refused("expand * d_model must be a multiple of head_dim, but got 2 * 16 and 64."):
        Mamba2(16, Mask(True))
    with refused("n_groups must divide the 4 heads, but got 3."):
        Mamba2(16, Mask(True), n_groups=3, **SMALL)
    with refused("mask must be causal for Mamba2 to go on from a past, but it reads both ways."):
        Mamba2(16, Mask(False), **SMALL).empty_state(1, 1)
