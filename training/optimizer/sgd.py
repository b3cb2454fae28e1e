"""A step down the gradient, with momentum.

Robbins and Monro 1951, https://doi.org/10.1214/aoms/1177729586
Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html
"""

from __future__ import annotations

import torch
from torch import nn

from registry import register
from training.contracts import Optimizer
from training.optimizer.groups import check, decay_groups


@register("optimizer/sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    The decay is a part of the gradient (an L2 penalty), so the momentum gathers it as well: under a constant learning
    rate a matrix without other gradients shrinks by ``lr * weight_decay / (1 - momentum)`` a step in the long run.

    Args:
        lr: Learning rate at the schedule's factor 1.
        momentum: How much of the last step is taken again.
        nesterov: Look at the gradient after the momentum's share of the step, not before.
        weight_decay: Times a matrix, this is added to its gradient. Tables, gains, biases and dynamics have none.

    Raises:
        ValueError: A value is negative or not finite, or ``nesterov`` has no momentum to look ahead with.
    """

    def __init__(
        self, *, lr: float = 0.1, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        check(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and momentum == 0:
            raise ValueError(f"momentum must be above 0 where nesterov is true, but got {momentum}.")
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay

    def __call__(self, model: nn.Module) -> torch.optim.SGD:
        groups = decay_groups(model, self.weight_decay)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)
