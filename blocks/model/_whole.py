"""What the models share: how deep a stack will be, and the last steps of building."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import Cost, Embedding, Ffn, Head, Init, Layer, Model, roles_of
from blocks.projection import quicken
from registry import Factory


def depth_of(stack: Callable[..., Any]) -> int:
    """How many layers a stack will run, by its choices ``layers`` and (where it has them) ``passes``."""
    choices = inspect.signature(stack).parameters
    layers = choices["layers"].default
    passes = choices["passes"].default if "passes" in choices else 1
    return len(layers) * passes


def join(head: Head, embedding: Embedding, tie: bool) -> None:
    """Head and embedding share a table, or each has its own.

    Raises:
        ValueError: The head can not do what was chosen.
    """
    if tie:
        head.tie(embedding)
    else:
        head.stand_alone()


def start(model: Model, init: Factory[Init]) -> None:
    """Give the parameters their first values: the scheme's, then each residual's gain on its sublayer.

    Wang et al. 2022, https://arxiv.org/abs/2203.00555 (which weights a gain is for)
    """
    init()(model)
    for layer in model.modules():
        if not isinstance(layer, Layer):
            continue
        for residual, sublayer in layer.sublayers():
            if residual.gain != 1.0:
                _scale(sublayer, residual.gain)
    quicken(model)


@torch.no_grad()
def _scale(sublayer: nn.Module, gain: float) -> None:
    gained = {"writer", "value", "matrix"} if isinstance(sublayer, Ffn) else {"writer", "value"}
    for held in roles_of(sublayer):
        if held.role in gained:
            held.parameter.mul_(gain)


def check_sizes(d_model: int, max_length: int) -> None:
    """Raises ``ValueError`` where a model would have no width or no room for a token."""
    if d_model < 1 or max_length < 1:
        raise ValueError(f"d_model and max_length must be at least 1, but got {d_model} and {max_length}.")


def check_length(tokens: Tensor, max_length: int) -> None:
    """Raises ``ValueError`` where a row has more tokens than the model was built for."""
    if tokens.shape[1] > max_length:
        raise ValueError(f"a row must have at most max_length = {max_length} tokens, but got {tokens.shape[1]}.")


def check_capacity(capacity: int, max_length: int) -> None:
    """Raises ``ValueError`` where a state would hold more tokens than the model was built for."""
    if capacity > max_length:
        raise ValueError(f"a row must have at most max_length = {max_length} tokens, but got room for {capacity}.")


def total(model: Model, *parts: Cost) -> Cost:
    """What a model costs whose parts follow one another."""
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        flops=sum(p.flops for p in parts),
        state_bytes=sum(p.state_bytes for p in parts),
        steps=sum(p.steps for p in parts),
    )
