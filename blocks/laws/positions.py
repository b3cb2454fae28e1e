"""Laws of positions: inside attention, and at the foot of a stack."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from blocks.contracts import Attention, AttentionPosition, EmbeddingPosition, Mixer
from blocks.laws.trying import EXACT, QUIET, B, D, T, agree, draw, full, hold, run, stirred, with_padding


def _positions(mixer: nn.Module) -> list[AttentionPosition]:
    return [m for m in mixer.modules() if isinstance(m, AttentionPosition)]


@torch.no_grad()
def uses_its_position(mixer: Mixer[Any]) -> None:
    """A position changes the output of its attention: with all that it does undone, the output is another."""
    moved = stirred(mixer)  # a table that starts at zero does nothing yet
    for attention in moved.modules():
        if isinstance(attention, Attention):
            _uses_its_position(attention)


def _uses_its_position(attention: Attention[Any]) -> None:
    x, layout = QUIET * draw(attention, B, T, attention.d_model), full(attention)
    before = run(attention, x, layout)
    for name in sorted({type(position).__name__ for position in _outermost(attention) if position.acts}):
        without = copy.deepcopy(attention)
        for position in _outermost(without):
            if type(position).__name__ == name:
                _undo(position)
        off, size = (run(without, x, layout) - before).abs().max().item(), before.abs().max().item()
        hold(off > EXACT * size, f"the position {name} must change the output, but without it the output is the same.")


def _outermost(mixer: nn.Module) -> list[AttentionPosition]:
    """The positions of a mixer, without the parts of a sum."""
    found = _positions(mixer)
    inner = {part for position in found for part in position.modules() if part is not position}
    return [position for position in found if position not in inner]


def _undo(position: AttentionPosition) -> None:
    """Replace what a position does by what the base does."""
    position.rotate = lambda x, layout, role: x  # type: ignore[method-assign]
    position.bias = lambda q, k, q_layout, k_layout: None  # type: ignore[method-assign]
    position.value_bias = lambda p, q_layout, k_layout: None  # type: ignore[method-assign]


@torch.no_grad()
def knows_order_as_declared(mixer: Mixer[Any]) -> None:
    """Without a position, tokens moved around give outputs moved along; with one, they do not."""
    if mixer.mask.causal or not mixer.mask.plain or mixer.prefers["position"] == "none":
        return  # with the last of these, a mixer says that it may know order by itself
    knows = any(p.acts for p in _positions(mixer))
    x, layout = QUIET * draw(mixer, B, T, D), full(mixer)
    rolled = run(mixer, x.roll(1, dims=1), layout).roll(-1, dims=1)
    off = (rolled - run(mixer, x, layout)).abs().max().item()
    if knows:
        hold(off > 1e-6, "a position must tell the order of tokens, but moving them around changes nothing.")
    else:
        hold(off <= EXACT, f"without a position the order must not matter, but it changes outputs by {off:.2e}.")


@torch.no_grad()
def stays_when_a_document_moves(mixer: Mixer[Any]) -> None:
    """A relative position depends on distances only."""
    if not mixer.mask.plain or not all(p.relative for p in _positions(mixer)):
        return
    x, layout = draw(mixer, B, T, D), full(mixer)
    there = layout._replace(position=layout.position + 50, dense=False)
    there = there._replace(heads=None if layout.heads is None else layout.heads + 50)
    agree(run(mixer, x, there), run(mixer, x, layout), "a document 50 tokens further", 1e-7)


@torch.no_grad()
def embeds_each_token_by_its_place(position: EmbeddingPosition) -> None:
    x, layout = draw(position, B, T, D), full(position)
    y = position.embed(x, layout)
    hold(y.shape == x.shape and y.dtype == x.dtype, "an embedding position must keep shape and dtype, but does not.")
    agree(position.embed(x[:, 4:], layout.slice(4, T)), y[:, 4:], "a later call")
    padded = position.embed(nn.functional.pad(x, (0, 0, 3, 1)), with_padding(layout, 3, 1))
    agree(padded[:, 3 : 3 + T], y, "padding on both sides")
    still = torch.zeros_like(x)
    moved = position.embed(still, layout)
    hold((moved[:, 0] - moved[:, 5]).abs().max() > 1e-6, "two places must be told apart, but look the same.")
