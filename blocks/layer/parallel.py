"""One step of depth, all sublayers at once: they read the same stream, and what they say is added together.

Wang & Komatsuzaki 2021, https://github.com/kingoflolz/mesh-transformer-jax (GPT-J)
Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311 (PaLM)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import (
    Attention,
    AttentionPosition,
    Cost,
    Ffn,
    Layer,
    Layout,
    Mask,
    Memory,
    Mixer,
    Path,
    Residual,
    Site,
)
from blocks.layer._parts import (
    LayerState,
    build_cross_attention,
    build_mask,
    build_mixer,
    check_memory,
    costs,
    must_meet,
    path_by,
    total,
)
from registry import Factory, register
from registry.errors import Refusals


@register("layer/parallel")
class Parallel(Layer[LayerState]):
    """A mixer, cross-attention if there is a memory, and a feed-forward side by side, on one residual.

    Args:
        mixer: Moves information between tokens.
        mask: Who may see whom in the mixer.
        ffn: Thinks about each token.
        residual: Ties the sum of all to the stream.
        position: How the mixer's queries and keys know order. None: they do not.
        cross_attention: Reads the memory. None: there is none.
        cross_position: How queries know where the memory's keys are. None: they do not.

    Raises:
        ValueError: The mask shows the future in a decoder; the mixer has no use for the position; a
            cross-attention has no memory, or a memory no cross-attention.
    """

    def __init__(
        self,
        d_model: int,
        site: Site,
        /,
        *,
        mixer: Factory[Mixer[Any]],
        mask: Factory[Mask],
        ffn: Factory[Ffn],
        residual: Factory[Residual],
        position: Factory[AttentionPosition] | None = None,
        cross_attention: Factory[Attention[Any]] | None = None,
        cross_position: Factory[AttentionPosition] | None = None,
    ) -> None:
        super().__init__(d_model, site, build_mask(mask, site))
        check_memory(site, cross_attention, cross_position)
        parts = Refusals()
        self.residual = parts.build(residual, d_model, site)
        self.mixer = parts.build(build_mixer, mixer, d_model, self.mask, position, site)
        self.cross_attention = parts.build(build_cross_attention, cross_attention, d_model, cross_position, site)
        self.ffn = parts.build(ffn, d_model)
        parts.judge()

        self.final_norm = self.residual.final_norm
        self.streams = self.residual.streams

    def forward(
        self, x: Tensor, layout: Layout, state: LayerState | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, LayerState | None]:
        must_meet(self.cross_attention, memory)
        mixed, crossed, thought = (None,) * 3 if state is None else (state.mixer, state.cross_attention, state.ffn)

        seen = self.residual.read(x)
        said, mixed = self.mixer(seen, layout, mixed)
        if self.cross_attention is not None:
            y, crossed = self.cross_attention(seen, layout, crossed, memory)
            said = said + y
        if self.ffn is not None:
            y, thought = self.ffn(seen, layout, thought)
            said = said + y
        x = self.residual.write(x, said)

        return x, None if state is None else LayerState(mixed, crossed, thought)

    def empty_state(self, rows: int, capacity: int) -> LayerState:
        return LayerState(
            self.mixer.empty_state(rows, capacity),
            None if self.cross_attention is None else self.cross_attention.empty_state(rows, 0),
            None if self.ffn is None else self.ffn.empty_state(rows),
        )

    def sublayers(self) -> Iterator[tuple[Residual, nn.Module]]:
        parts = (self.mixer, self.cross_attention, self.ffn)
        return ((self.residual, part) for part in parts if part is not None)

    def cost(self, length: int, memory: int | None = None) -> Cost:
        parts = costs((part for _, part in self.sublayers()), self.cross_attention, length, memory)
        residual = self.residual.cost(length)
        together = total(self, [*parts, residual])
        return together._replace(steps=max(part.steps for part in parts) + residual.steps)

    def reads(self, length: int) -> Tensor:
        mixed = self.mixer.reads(length) | torch.eye(length, dtype=torch.bool)
        return mixed if self.ffn is None else mixed | self.ffn.reads(length)

    def path(self, distance: int, length: int) -> Path:
        return path_by(self, self.mixer, distance, length)
