"""AdamW: the published step, decay on matrices alone, one fused kernel."""

import re

import pytest
import torch
from torch import nn

from training.optimizer.adamw import AdamW


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)).double()


def test_a_step_is_that_of_the_paper():
    net, chosen = model(), AdamW(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)
    optimizer = chosen(net)
    x = torch.randn(5, 3, dtype=torch.float64)
    mean = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    square = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    expected = {n: p.detach().clone() for n, p in net.named_parameters()}
    for t in range(1, 4):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        for n, p in net.named_parameters():
            mean[n] = 0.8 * mean[n] + 0.2 * p.grad
            square[n] = 0.9 * square[n] + 0.1 * p.grad**2
            step = (mean[n] / (1 - 0.8**t)) / ((square[n] / (1 - 0.9**t)).sqrt() + 1e-6)
            decay = 0.3 if p.ndim == 2 else 0.0
            expected[n] = expected[n] - 0.01 * step - 0.01 * decay * expected[n]
        optimizer.step()
        for n, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), expected[n], rtol=1e-9, atol=1e-12)


def test_matrices_shrink_and_gains_and_biases_do_not():
    groups = AdamW(weight_decay=0.2)(model()).param_groups
    assert [g["weight_decay"] for g in groups] == [0.2, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == 6


def test_frozen_parameters_are_left_out():
    net = model()
    net[0].weight.requires_grad_(False)
    assert sum(len(g["params"]) for g in AdamW()(net).param_groups) == 5


def test_a_model_without_biases_has_one_group():
    assert len(AdamW()(nn.Linear(2, 2, bias=False)).param_groups) == 1


def test_it_is_fused_on_the_cpu():
    assert AdamW()(model()).defaults["fused"] is True


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"lr": -1.0}, "lr must be a finite number and not negative, but got -1.0."),
        ({"lr": float("nan")}, "lr must be a finite number and not negative, but got nan."),
        ({"weight_decay": float("inf")}, "weight_decay must be a finite number and not negative, but got inf."),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1, but got 1.0."),
        ({"beta2": -0.1}, "beta2 must be at least 0 and below 1, but got -0.1."),
    ],
)
def test_refuses_what_no_step_can_use(choices, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        AdamW(**choices)
