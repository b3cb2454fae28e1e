"""What the schemes share: the parts they start, which of them make the logits, and which write into the stream."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from blocks.contracts import Layer, Model, Stack, roles_of

Part = nn.Linear | nn.Embedding

SCORE = 0.3
"""The standard deviation of the first logits of a normed stream: their loss is 0.045 nats above a uniform guess."""

SHARED = 0.02
"""The standard deviation of a table that both embeds and scores: narrower ones were seen to learn more slowly,
wider ones favour the token that was just read."""


@torch.no_grad()
def normal(part: Part, std: float) -> None:
    """Weights from a normal distribution, the bias at zero."""
    part.weight.normal_(std=std)
    if isinstance(part, nn.Linear) and part.bias is not None:
        part.bias.zero_()


def scoring(model: nn.Module) -> list[Part]:
    """What makes the logits: all that a model's head holds, or shares with the embedding."""
    return _parts(model.head) if isinstance(model, Model) else []


def guess_evenly(model: nn.Module) -> None:
    """Start what makes the logits so small that no token is much likelier than another."""
    embedded = _outside_the_head(model)
    for part in scoring(model):
        normal(part, SHARED if id(part.weight) in embedded else SCORE * part.weight.shape[1] ** -0.5)


def body(model: nn.Module) -> list[Part]:
    """Everything else, a table that the head shares left to ``scoring``."""
    last = {id(part.weight) for part in scoring(model)}
    return [part for part in _parts(model) if id(part.weight) not in last]


def writers(model: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """Each parameter that writes into the stream of a stack, and how many sublayers write into that stream."""
    found: dict[int, tuple[nn.Parameter, int]] = {}
    for stack in model.modules():
        if not isinstance(stack, Stack):
            continue
        layers = [m for m in stack.modules() if isinstance(m, Layer)]
        count = sum(len(list(layer.sublayers())) for layer in layers) * getattr(stack, "passes", 1)
        for held in roles_of(stack):
            if held.role == "writer":
                found[id(held.parameter)] = (held.parameter, max(count, 1))
    yield from found.values()


def shares_with_embedding(model: nn.Module) -> bool:
    """Whether what makes the logits is, or holds, the table of the embedding."""
    embedded = _outside_the_head(model)
    return any(id(part.weight) in embedded for part in scoring(model))


def stream_width(model: nn.Module) -> int | None:
    """``d_model``. None: there is no stack."""
    return next((m.d_model for m in model.modules() if isinstance(m, Stack)), None)


def _outside_the_head(model: nn.Module) -> set[int]:
    """The weights, by ``id``, that parts of the model other than its head hold."""
    head = model.head if isinstance(model, Model) else None
    return {id(part.weight) for child in model.children() if child is not head for part in _parts(child)}


def _parts(module: nn.Module) -> list[Part]:
    return [m for m in module.modules() if isinstance(m, nn.Linear | nn.Embedding)]
