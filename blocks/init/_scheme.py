"""What the schemes share: the parts they start, which of them make the logits, and which write into the stream."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from blocks.contracts import Layer, Model, Stack

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
    head = model.head if isinstance(model, Model) else None
    others = {id(part.weight) for child in model.children() if child is not head for part in _parts(child)}
    for part in scoring(model):
        normal(part, SHARED if id(part.weight) in others else SCORE * part.weight.shape[1] ** -0.5)


def body(model: nn.Module) -> list[Part]:
    """Everything else, a table that the head shares left to ``scoring``."""
    last = {id(part.weight) for part in scoring(model)}
    return [part for part in _parts(model) if id(part.weight) not in last]


def writers(model: nn.Module) -> Iterator[tuple[nn.Linear, int]]:
    """Each projection into the stream of a stack, and how many sublayers write into that stream."""
    for stack in model.modules():
        if not isinstance(stack, Stack):
            continue
        layers = [m for m in stack.modules() if isinstance(m, Layer)]
        count = sum(len(list(layer.sublayers())) for layer in layers) * getattr(stack, "passes", 1)
        for name, part in stack.named_modules():
            if name.rpartition(".")[2] == "to_out" and isinstance(part, nn.Linear):
                yield part, max(count, 1)


def _parts(module: nn.Module) -> list[Part]:
    return [m for m in module.modules() if isinstance(m, nn.Linear | nn.Embedding)]
