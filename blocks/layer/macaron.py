"""One step of depth with the mixing between two feed-forwards that say half as much.

Lu et al. 2019, https://arxiv.org/abs/1906.02762
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    State,
)
from blocks.layer._parts import (
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


@dataclass(frozen=True, slots=True)
class MacaronState(State):
    """What each sublayer remembers; None where there is no such sublayer."""

    first: State
    mixer: State
    cross_attention: State | None
    ffn: State


@register("layer/macaron")
class Macaron(Layer[MacaronState]):
    """Half a feed-forward, a mixer, cross-attention if there is a memory, and another half feed-forward.

    Args:
        mixer: Moves information between tokens.
        mask: Who may see whom in the mixer.
        ffn: Thinks about each token, once before the mixer and once behind, with weights of its own.
        residual: Ties each sublayer to the stream.
        position: How the mixer's queries and keys know order. None: they do not.
        cross_attention: Reads the memory. None: there is none.
        cross_position: How queries know where the memory's keys are. None: they do not.

    Raises:
        ValueError: There is no feed-forward; the mask shows the future in a decoder; the mixer has no use for
            the position; a cross-attention has no memory, or a memory no cross-attention.
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
        self.first_residual = parts.build(residual, d_model, site)
        self.first = parts.build(ffn, d_model)
        self.mixer_residual = parts.build(residual, d_model, site)
        self.mixer = parts.build(build_mixer, mixer, d_model, self.mask, position, site)
        self.cross_residual: Any = None
        self.cross_attention = parts.build(build_cross_attention, cross_attention, d_model, cross_position, site)
        if cross_attention is not None:
            self.cross_residual = parts.build(residual, d_model, site)
        self.ffn_residual = parts.build(residual, d_model, site)
        self.ffn = parts.build(ffn, d_model)
        parts.judge()
        if self.ffn is None:
            raise ValueError(
                f"ffn must be a feed-forward in {type(self).__name__}, but got none. Choose layer=sequential."
            )

        self.final_norm = self.ffn_residual.final_norm
        self.streams = streams_of(residual for residual, _ in self.sublayers())

    def forward(
        self, x: Tensor, layout: Layout, state: MacaronState | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, MacaronState | None]:
        must_meet(self.cross_attention, memory)
        began, mixed, crossed, thought = (
            (None,) * 4 if state is None else (state.first, state.mixer, state.cross_attention, state.ffn)
        )

        y, began = self.first(self.first_residual.read(x), layout, began)
        x = self.first_residual.write(x, 0.5 * y)
        y, mixed = self.mixer(self.mixer_residual.read(x), layout, mixed)
        x = self.mixer_residual.write(x, y)
        if self.cross_attention is not None:
            y, crossed = self.cross_attention(self.cross_residual.read(x), layout, crossed, memory)
            x = self.cross_residual.write(x, y)
        y, thought = self.ffn(self.ffn_residual.read(x), layout, thought)
        x = self.ffn_residual.write(x, 0.5 * y)

        return x, None if state is None else MacaronState(began, mixed, crossed, thought)

    def empty_state(self, rows: int, capacity: int) -> MacaronState:
        return MacaronState(
            self.first.empty_state(rows),
            self.mixer.empty_state(rows, capacity),
            None if self.cross_attention is None else self.cross_attention.empty_state(rows, 0),
            self.ffn.empty_state(rows),
        )

    def sublayers(self) -> Iterator[tuple[Residual, nn.Module]]:
        yield self.first_residual, self.first
        yield self.mixer_residual, self.mixer
        if self.cross_attention is not None:
            yield self.cross_residual, self.cross_attention
        yield self.ffn_residual, self.ffn

    def cost(self, length: int, memory: int | None = None) -> Cost:
        parts = (part for pair in self.sublayers() for part in pair)
        return total(self, costs(parts, self.cross_attention, length, memory))

    def reads(self, length: int) -> Tensor:
        return reads_through([self.first, self.mixer, self.ffn], length)

    def path(self, distance: int, length: int) -> Path:
        return path_by(self, self.mixer, distance, length)
