"""Which parameters shrink: matrices do, gains and biases do not."""

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: those with two or more axes, and the rest without decay."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
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
