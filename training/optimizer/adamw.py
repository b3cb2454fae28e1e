"""Steps scaled by each weight's own gradient history, with decay apart from the gradient.

Kingma and Ba 2015, https://arxiv.org/abs/1412.6980
Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101
"""

from __future__ import annotations

import torch
from torch import nn

from registry import register
from training.contracts import Optimizer
from training.optimizer.groups import check, decay_groups

FUSED = ("cpu", "cuda", "mps", "xpu")
"""Where torch has all of a step in one kernel."""


@register("optimizer/adamw")
class AdamW(Optimizer):
    """Adam with decoupled weight decay on the matrices, in one fused kernel where there is one.

    Which parameters are matrices is declared by the blocks (``blocks/roles.py``). Tables do not shrink, those of
    tokens among them; nor do gains, biases and the dynamics of recurrences.

    Args:
        lr: Learning rate at the schedule's factor 1.
        beta1: How much of the mean gradient is kept from step to step.
        beta2: The same for the mean squared gradient.
        eps: Added to the root of the mean square, so that nothing is divided by zero.
        weight_decay: Times the learning rate: the part of a matrix that is taken away at each step.

    Raises:
        ValueError: A rate is negative or not finite, or a beta is not in [0, 1).
    """

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        check(lr=lr, eps=eps, weight_decay=weight_decay)
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, but got {beta}.")
        self.lr, self.betas, self.eps, self.weight_decay = lr, (beta1, beta2), eps, weight_decay

    def __call__(self, model: nn.Module) -> torch.optim.AdamW:
        groups = decay_groups(model, self.weight_decay)
        fused = all(p.device.type in FUSED and p.is_floating_point() for g in groups for p in g["params"])
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)
