"""Depth: layers one after another, positions at the foot, a norm at the top where the last layer wants one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import Cost, EmbeddingPosition, Layer, Layout, Mask, Memory, Norm, Site, Stack, State
from blocks.stack._depth import Foot, build_layers, rerun_layer, total
from registry import Factory, register


@dataclass(frozen=True, slots=True)
class StackState(State):
    """What each layer remembers."""

    layers: tuple[State, ...]


@register("stack/plain", norm="norm/rms")
class Plain(Stack[StackState]):
    """Layers one after another, each with parameters of its own.

    Args:
        layers: The layers, from the foot up.
        norm: The norm after the last layer, where its residual leaves the stream without one.
        position: What is added at the foot so that the stream knows order. None: nothing.
        dropout: Probability of dropping a feature of the stream at the foot while training.
        checkpoint: Whether the backward runs each layer again instead of keeping its activations.

    Raises:
        ValueError: Layers or positions refuse to be built (all their reasons are given), there is no
            layer, or they do not tie to equally many streams.
    """

    def __init__(
        self,
        d_model: int,
        site: Site,
        /,
        *,
        layers: list[Factory[Layer[Any]]],
        norm: Factory[Norm],
        position: list[Factory[EmbeddingPosition]] | None = None,
        dropout: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(d_model, site, Mask(site.causal))
        self.checkpoint = checkpoint
        built = build_layers(layers, d_model, site)
        self.foot = Foot(position, dropout, d_model, site, built[0].streams)
        self.layers: Iterable[Any] = nn.ModuleList(built)
        self.norm = norm(d_model) if built[-1].final_norm else nn.Identity()

    def forward(
        self, x: Tensor, layout: Layout, state: StackState | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, StackState | None]:
        layout = layout if layout.scratch is not None else layout.fresh()
        rerun = self.checkpoint and state is None and torch.is_grad_enabled()
        after = []

        x = self.foot(x, layout)
        for i, layer in enumerate(self.layers):
            if rerun:
                x = rerun_layer(layer, x, layout, memory)
            else:
                x, kept = layer(x, layout, None if state is None else state.layers[i], memory)
                after.append(kept)
        x = x if self.foot.streams == 1 else x.sum(dim=2)
        return self.norm(x), None if state is None else StackState(tuple(after))

    def empty_state(self, rows: int, capacity: int) -> StackState:
        return StackState(tuple(layer.empty_state(rows, capacity) for layer in self.layers))

    def cost(self, length: int) -> Cost:
        return total(self, (layer.cost(length) for layer in self.layers))
