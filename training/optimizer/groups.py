"""Which parameters shrink: matrices and writers do; tables, gains, biases and dynamics do not."""

from __future__ import annotations

from typing import Any

from torch import nn

from blocks.contracts import DECAYED, roles_of


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, by their roles: those in ``DECAYED``, and the rest without decay.

    A parameter whose role nobody declared is among the rest.
    """
    trainable = [held for held in roles_of(model) if held.parameter.requires_grad]
    groups = [
        {"params": [held.parameter for held in trainable if held.role in DECAYED], "weight_decay": weight_decay},
        {"params": [held.parameter for held in trainable if held.role not in DECAYED], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def check(**values: float) -> None:
    """Refuse what no optimizer can use: a rate or a decay that is negative, infinite or not a number.

    Raises:
        ValueError: One of them is.
    """
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number and not negative, but got {value}.")
