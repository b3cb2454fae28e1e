"""The nonlinearities of a feed-forward, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal["relu", "relu2", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"]


def relu2(x: Tensor) -> Tensor:
    """The square of what is positive. So et al. 2021, https://arxiv.org/abs/2109.08668"""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": relu2,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """The activation called ``name``.

    Raises:
        ValueError: There is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, but got {name!r}.")
    return ACTIVATIONS[name]


def width(d_ff: int | None, default: int) -> int:
    """The hidden width that was chosen, or the default.

    Raises:
        ValueError: It is not positive.
    """
    if d_ff is None:
        return default
    if d_ff <= 0:
        raise ValueError(f"d_ff must be positive, but got {d_ff}.")
    return d_ff
