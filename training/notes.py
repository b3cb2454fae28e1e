"""Notes on a composition: it works, but a part of it has no effect in this run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.contracts import Layout, Mask
from registry import factory
from training.report import choices, short

MOST = 16_384
"""Rows longer than this are not tried: the mask of every pair of their tokens would be made."""

STRIP = 256
"""Queries whose masks are made at once."""


def notes(model: Mapping[str, Any], length: int) -> list[str]:
    """A sentence for each mask policy of a model's spec that hides nothing in rows of ``length`` tokens."""
    found: dict[str, None] = {}
    for stack, direction in (("encoder", "full"), ("decoder", "causal")):
        for layer in (model.get(stack) or {}).get("layers", []):
            spec = layer.get("mask")
            if not spec or length > MOST:
                continue
            mask = factory(spec, ("mask",))(direction == "causal")
            if not mask.plain and hides_nothing(mask, length):
                named = " ".join(filter(None, [short(spec["name"]), f"({c})" if (c := choices(spec)) else ""]))
                found[
                    f"{stack}: mask {named} hides nothing in rows of {length} tokens: it is the same as {direction}."
                ] = None
    return list(found)


def hides_nothing(mask: Mask, length: int) -> bool:
    """Whether ``mask`` hides nothing of a row of ``length`` tokens but, if it is causal, later tokens."""
    layout, plain = Layout.full(1, length), Mask(mask.causal)
    strips = [layout.slice(start, min(start + STRIP, length)) for start in range(0, length, STRIP)]
    return all(bool((mask(q, layout) == plain(q, layout)).all()) for q in reversed(strips))
