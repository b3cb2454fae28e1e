"""How a layer builds its parts from what its stack knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blocks.contracts import (
    NEVER,
    Attention,
    AttentionPosition,
    Cost,
    Ffn,
    Layer,
    Mask,
    Memory,
    Mixer,
    Path,
    Residual,
    Site,
    State,
    acts_in_attention,
    class_of,
    joined,
    layers_between,
    placed,
)
from registry import Factory


@dataclass(frozen=True, slots=True)
class LayerState(State):
    """What each sublayer remembers; None where there is no such sublayer."""

    mixer: State
    cross_attention: State | None
    ffn: State | None


def build_mask(mask: Factory[Mask], site: Site) -> Mask:
    """The layer's policy, which layers with the same choices share.

    Raises:
        ValueError: It shows the future where the layer must hide it.
    """
    policy: Mask = site.share(mask, site.causal)
    if site.causal and not policy.causal:
        raise ValueError(f"mask must hide the future in a decoder, but got {type(policy).__name__}.")
    return policy


def build_mixer(
    mixer: Factory[Mixer[Any]], d_model: int, mask: Mask, position: Factory[AttentionPosition] | None, site: Site
) -> Mixer[Any]:
    """The mixer, with a position if it has heads to use one.

    Raises:
        ValueError: It has none, or takes no position, and there is a position.
    """
    kind = class_of(mixer)
    if issubclass(kind, Attention):
        return placed(mixer, d_model, mask, position, site)
    if position is not None and acts_in_attention(class_of(position)):
        raise ValueError(
            f"position must be none for {kind.__name__}, which has no queries and keys, but got "
            f"{class_of(position).__name__}. Choose one that acts at the foot of the stack, or position=none."
        )
    return mixer(d_model, mask)


def build_cross_attention(
    attention: Factory[Attention[Any]] | None,
    d_model: int,
    position: Factory[AttentionPosition] | None,
    site: Site,
) -> Attention[Any] | None:
    """What reads the memory, if anything does: nothing of one document is hidden from it.

    Raises:
        ValueError: It can not read a memory, or takes no position, and there is one.
    """
    if attention is None:
        return None
    kind = class_of(attention)
    if not issubclass(kind, Attention):
        raise ValueError(f"cross_attention must be an attention, which can read a memory, but got {kind.__name__}.")
    return placed(attention, d_model, site.share(Mask, False), position, site)


def check_memory(site: Site, cross_attention: Any, cross_position: Any) -> None:
    """Raises ``ValueError`` unless a memory, a cross-attention and its position come together."""
    if site.reads_memory and cross_attention is None:
        raise ValueError("cross_attention must read the encoder's memory, but got none. Choose one, like mha.")
    if cross_attention is not None and not site.reads_memory:
        raise ValueError(
            f"cross_attention must have a memory to read, but got {class_of(cross_attention).__name__} in a model "
            "without one. Set it to null, or choose model=encoder_decoder."
        )
    if cross_position is not None and cross_attention is None:
        raise ValueError(
            f"cross_position must have a cross-attention to act in, but got {class_of(cross_position).__name__} alone."
        )


def must_meet(cross_attention: Attention[Any] | None, memory: Memory | None) -> None:
    """Raises ``ValueError`` where a layer that reads a memory got none, or one that does not got one."""
    if (cross_attention is None) != (memory is None):
        raise ValueError("a memory and a cross-attention must come together, but got only one.")


def streams_of(residuals: Iterable[Residual]) -> int:
    """How many streams the residuals of a layer tie to.

    Raises:
        ValueError: They do not agree.
    """
    streams = {residual.streams for residual in residuals}
    if len(streams) > 1:
        raise ValueError(f"residuals of one layer must agree on streams, but got {sorted(streams)}.")
    return streams.pop()


def costs(parts: Iterable[Any], cross: Attention[Any] | None, length: int, memory: int | None) -> list[Cost]:
    """What each part of a layer costs, of which ``cross`` reads a memory."""
    return [cross.cost(length, memory or 0) if cross is part else part.cost(length) for part in parts]


def total(layer: Layer[Any], parts: Iterable[Cost]) -> Cost:
    """What a layer costs whose parts follow one another."""
    parts = list(parts)
    return Cost(
        parameters=sum(p.numel() for p in layer.parameters()),
        flops=sum(p.flops for p in parts),
        state_bytes=sum(p.state_bytes for p in parts) if layer.mask.causal else 0,
        steps=sum(p.steps for p in parts),
    )


def reads_through(parts: Iterable[Mixer[Any] | Ffn], length: int) -> Tensor:
    """Which token depends on which where parts follow one another, each on a residual. (T, T) bool"""
    own = torch.eye(length, dtype=torch.bool)
    read = own
    for part in parts:
        read = joined(part.reads(length) | own, read)
    return read


def path_by(layer: Layer[Any], mixer: Mixer[Any], distance: int, length: int) -> Path:
    """How layers that are all like ``layer`` bring a token another one: each of them by its mixer."""
    layers = layers_between(layer.reads(length), distance)
    if layers is None:
        return NEVER
    inside = mixer.path(-(-distance // layers), length).operations
    return Path(layers, layers * (inside or 1))  # else its feed-forward goes the way: one operation
