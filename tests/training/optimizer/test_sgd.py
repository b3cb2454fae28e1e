"""SGD: the step with momentum, and its refusals."""

import re

import pytest
import torch
from torch import nn

from training.optimizer.sgd import SGD


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_step_is_the_gradient_and_the_momentum(nesterov):
    torch.manual_seed(0)
    net = nn.Linear(3, 1).double()
    optimizer = SGD(lr=0.1, momentum=0.5, nesterov=nesterov, weight_decay=0.2)(net)
    x = torch.randn(4, 3, dtype=torch.float64)
    weight, velocity = net.weight.detach().clone(), None
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        grad = net.weight.grad + 0.2 * weight
        velocity = grad if velocity is None else 0.5 * velocity + grad
        weight = weight - 0.1 * (grad + 0.5 * velocity if nesterov else velocity)
        optimizer.step()
        torch.testing.assert_close(net.weight.detach(), weight, rtol=1e-12, atol=1e-12)


def test_biases_do_not_shrink():
    groups = SGD(weight_decay=0.2)(nn.Linear(2, 2)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.2, 0.0]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"lr": float("inf")}, "lr must be a finite number and not negative, but got inf."),
        ({"momentum": -0.5}, "momentum must be a finite number and not negative, but got -0.5."),
        ({"momentum": 0.0, "nesterov": True}, "momentum must be above 0 where nesterov is true, but got 0.0."),
    ],
)
def test_refuses_what_no_step_can_use(choices, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        SGD(**choices)
