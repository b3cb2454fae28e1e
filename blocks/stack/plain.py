"""Depth: layers one after another, positions at the foot, a norm at the top where the last layer wants one.

One block, two names: a looped stack runs its layers several times with the same weights.

Dehghani et al. 2018, https://arxiv.org/abs/1807.03819
Lan et al. 2019, https://arxiv.org/abs/1909.11942
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import (
    Cost,
    EmbeddingPosition,
    Layer,
    Layout,
    Mask,
    Memory,
    Norm,
    Path,
    Site,
    Stack,
    State,
    joined,
)
from blocks.stack._depth import Foot, build_layers, own, path_through, rerun_layer, total
from registry import Factory, register


@dataclass(frozen=True, slots=True)
class StackState(State):
    """What each layer remembers of each pass."""

    layers: tuple[State, ...]


@register("stack/looped", norm="norm/rms", passes=2)
@register("stack/plain", norm="norm/rms")
class Layers(Stack[StackState]):
    """Layers one after another, from foot to top, once or several times.

    Args:
        layers: The layers, from the foot up.
        passes: How often the stream goes through all of them; each pass has a state of its own.
        norm: The norm after the last layer, where its residual leaves the stream without one.
        position: What is added at the foot so that the stream knows order. None: nothing.
        dropout: Probability of dropping a feature of the stream at the foot while training.
        checkpoint: Whether the backward runs each layer again instead of keeping its activations.

    Raises:
        ValueError: Layers or positions refuse to be built (all their reasons are given), there is no
            layer or no pass, or the layers do not tie to equally many streams.
    """

    def __init__(
        self,
        d_model: int,
        site: Site,
        /,
        *,
        layers: list[Factory[Layer[Any]]],
        norm: Factory[Norm],
        passes: int = 1,
        position: list[Factory[EmbeddingPosition]] | None = None,
        dropout: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(d_model, site, Mask(site.causal))
        if passes < 1:
            raise ValueError(f"passes must be at least 1, but got {passes}.")
        self.passes = passes
        self.checkpoint = checkpoint
        built = build_layers(layers, d_model, site, passes)
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
        for i, layer in enumerate(self._through()):
            if rerun:
                x = rerun_layer(layer, x, layout, memory)
            else:
                x, kept = layer(x, layout, None if state is None else state.layers[i], memory)
                after.append(kept)
        x = x if self.foot.streams == 1 else x.sum(dim=2)
        return self.norm(x), None if state is None else StackState(tuple(after))

    def empty_state(self, rows: int, capacity: int) -> StackState:
        return StackState(tuple(layer.empty_state(rows, capacity) for layer in self._through()))

    def cost(self, length: int, memory: int | None = None) -> Cost:
        return total(self, (layer.cost(length, memory) for layer in self._through()))

    def reads(self, length: int) -> Tensor:
        return functools.reduce(lambda below, layer: joined(layer.reads(length), below), self._through(), own(length))

    def path(self, distance: int, length: int) -> Path:
        return path_through(self._through(), distance, length)

    def _through(self) -> Iterator[Any]:
        """Each layer, as often as the stream goes through it."""
        return (layer for _ in range(self.passes) for layer in self.layers)
