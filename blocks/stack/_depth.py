"""What the stacks share: building layers, the foot of the stream, and running a layer without keeping activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks.contracts import (
    NEVER,
    Cost,
    EmbeddingPosition,
    Layer,
    Layout,
    Memory,
    Path,
    Scratch,
    Site,
    Stack,
    joined,
    reaches,
)
from registry import Factory
from registry.errors import Refusals


def build_layers(layers: list[Factory[Layer[Any]]], d_model: int, site: Site, passes: int = 1) -> list[Layer[Any]]:
    """Each layer on its own site.

    Raises:
        ValueError: Some refuse to be built (all of their reasons are given), there is none, or they do
            not tie to equally many streams.
    """
    if not layers:
        raise ValueError("layers must be at least one, but got none.")
    parts, depth = Refusals(), len(layers) * passes
    built = [parts.build(f, d_model, replace(site, depth=i, n_layers=depth)) for i, f in enumerate(layers)]
    parts.judge()
    streams = [layer.streams for layer in built]
    if len(set(streams)) > 1:
        raise ValueError(f"layers of one stack must agree on residual streams, but got {streams}.")
    return built


class Foot(nn.Module):
    """Where the stream begins: positions are added, features dropped, streams widened. (B, T, D) -> stream"""

    def __init__(
        self,
        position: list[Factory[EmbeddingPosition]] | None,
        dropout: float,
        d_model: int,
        site: Site,
        streams: int,
    ) -> None:
        super().__init__()
        parts = Refusals()
        built = [parts.build(f, d_model, site.max_length) for f in position or []]
        parts.judge()
        for part in built:
            if not isinstance(part, EmbeddingPosition):
                raise ValueError(
                    f"position must act at the foot of a stack, but got {type(part).__name__}, which does not."
                )
        self.positions = nn.ModuleList(built)
        self.dropout = nn.Dropout(dropout)
        self.streams = streams

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        for position in self.positions:
            x = position.embed(x, layout)  # type: ignore[operator]
        x = self.dropout(x)
        return x if self.streams == 1 else x.unsqueeze(2).expand(-1, -1, self.streams, -1)


def rerun_layer(layer: Layer[Any], x: Tensor, layout: Layout, memory: Memory | None) -> Tensor:
    """The layer, keeping only ``x``: the backward runs it again.

    It runs on a scratch of its own, so that the second run makes what the first one made; what it
    reports reaches the caller once.
    """

    def run(x: Tensor, memory: Memory | None) -> tuple[Tensor, dict[str, list[Tensor]]]:
        scratch = Scratch()
        y, _ = layer(x, layout._replace(scratch=scratch), None, memory)
        return y, scratch.losses

    y, losses = checkpoint(run, x, memory, use_reentrant=False)
    for name, entries in losses.items():
        for loss in entries:
            layout.report(name, loss)
    return y


def total(stack: Stack[Any], layers: Iterable[Cost]) -> Cost:
    """What a stack costs whose layers follow one another."""
    layers = list(layers)
    return Cost(
        parameters=sum(p.numel() for p in stack.parameters()),
        flops=sum(c.flops for c in layers),
        state_bytes=sum(c.state_bytes for c in layers) if stack.mask.causal else 0,
        steps=sum(c.steps for c in layers),
    )


def own(length: int) -> Tensor:
    """Each token depends on itself: what a stack without layers reads. (T, T) bool"""
    return torch.eye(length, dtype=torch.bool)


def path_through(layers: Iterable[Layer[Any]], distance: int, length: int) -> Path:
    """How the layers of a stack, one after another, bring a token another one. Some ``NEVER`` do."""
    read, used = own(length), []
    for layer in layers:
        read = joined(layer.reads(length), read)
        used.append(layer)
        if reaches(read, distance):
            hop = -(-distance // len(used))
            return Path(len(used), sum(layer.path(hop, length).operations or 1 for layer in used))
    return NEVER
