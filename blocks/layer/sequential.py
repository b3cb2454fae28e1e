"""One step of depth, sublayer after sublayer: mix tokens, read the memory, transform each token on its own.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    reads_through,
    streams_of,
    total,
)
from registry import Factory, register
from registry.errors import Refusals


@register("layer/sequential")
class Sequential(Layer[LayerState]):
    """A mixer, then cross-attention if there is a memory, then a feed-forward, each on its own residual.

    Args:
        mixer: Moves information between tokens.
        mask: Who may see whom in the mixer.
        ffn: Thinks about each token.
        residual: Ties each sublayer to the stream.
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

        self.mixer_residual = parts.build(residual, d_model, site)
        self.mixer = parts.build(build_mixer, mixer, d_model, self.mask, position, site)
        self.cross_residual: Any = None
        self.cross_attention = parts.build(build_cross_attention, cross_attention, d_model, cross_position, site)
        if cross_attention is not None:
            self.cross_residual = parts.build(residual, d_model, site)
        self.ffn = parts.build(ffn, d_model)
        self.ffn_residual: Any = None if self.ffn is None else parts.build(residual, d_model, site)
        parts.judge()

        residuals = [residual for residual, _ in self.sublayers()]
        self.final_norm = residuals[-1].final_norm
        self.streams = streams_of(residuals)

    def forward(
        self, x: Tensor, layout: Layout, state: LayerState | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, LayerState | None]:
        must_meet(self.cross_attention, memory)
        mixed, crossed, thought = (None,) * 3 if state is None else (state.mixer, state.cross_attention, state.ffn)

        y, mixed = self.mixer(self.mixer_residual.read(x), layout, mixed)
        x = self.mixer_residual.write(x, y)
        if self.cross_attention is not None:
            y, crossed = self.cross_attention(self.cross_residual.read(x), layout, crossed, memory)
            x = self.cross_residual.write(x, y)
        if self.ffn is not None:
            y, thought = self.ffn(self.ffn_residual.read(x), layout, thought)
            x = self.ffn_residual.write(x, y)

        return x, None if state is None else LayerState(mixed, crossed, thought)

    def empty_state(self, rows: int, capacity: int) -> LayerState:
        return LayerState(
            self.mixer.empty_state(rows, capacity),
            None if self.cross_attention is None else self.cross_attention.empty_state(rows, 0),
            None if self.ffn is None else self.ffn.empty_state(rows),
        )

    def sublayers(self) -> Iterator[tuple[Residual, nn.Module]]:
        yield self.mixer_residual, self.mixer
        if self.cross_attention is not None:
            yield self.cross_residual, self.cross_attention
        if self.ffn is not None:
            yield self.ffn_residual, self.ffn

    def cost(self, length: int, memory: int | None = None) -> Cost:
        parts = (part for pair in self.sublayers() for part in pair)
        return total(self, costs(parts, self.cross_attention, length, memory))

    def reads(self, length: int) -> Tensor:
        return reads_through([self.mixer] if self.ffn is None else [self.mixer, self.ffn], length)

    def path(self, distance: int, length: int) -> Path:
        return path_by(self, self.mixer, distance, length)
