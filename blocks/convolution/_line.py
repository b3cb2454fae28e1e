"""Lines the tokens of each row up, so that a neighbour is a shift away however the row is laid out.

In a line the real tokens of a row stand at its end, document after document with nothing in between,
and what was seen in earlier calls stands before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import PAD, Layout, Mask, State


@dataclass(frozen=True, slots=True)
class Recent(State):
    """The last real tokens of each row, the newest at the end; before the first one, padding."""

    x: Tensor  # (B, size, D)
    position: Tensor  # (B, size)

    @classmethod
    def empty(cls, like: Tensor, rows: int, size: int, width: int) -> Recent:
        """Nothing seen yet, in the dtype and on the device of ``like``."""
        x = like.new_zeros(rows, size, width)
        return cls(x, torch.full((rows, size), PAD, device=like.device))


class Line(NamedTuple):
    """Rows of tokens lined up. S tokens each: those of this call and those remembered."""

    x: Tensor  # (B, S, D), zero at padding
    position: Tensor | None  # (B, S); None: one document from first to last, so that every neighbour counts
    place: Tensor | None  # (B, T) where in the line each token of this call stands; None: where it stood

    def shifted(self, back: int, ahead: int) -> list[Tensor]:
        """For each token its neighbour ``back`` tokens before it, ..., itself, ..., ``ahead`` tokens behind it.

        Zero where the document has no such token. back + 1 + ahead times (B, S, D)
        """
        S = self.x.shape[1]
        x = F.pad(self.x, (0, 0, back, ahead))
        shifts = [x[:, i : i + S] for i in range(back + 1 + ahead)]
        if self.position is None:
            return shifts
        # Positions count on inside a document and nowhere else; where padding would fit, x is zero.
        position = F.pad(self.position, (back, ahead), value=PAD)
        expected = [self.position + i - back for i in range(back + 1 + ahead)]
        return [s * (position[:, i : i + S] == expected[i])[..., None] for i, s in enumerate(shifts)]

    def restore(self, y: Tensor) -> Tensor:
        """The tokens of this call, where they stood. (B, S, any) -> (B, T, any)"""
        return y if self.place is None else y.gather(1, self.place[..., None].expand(-1, -1, y.shape[-1]))

    def recent(self, past: Recent) -> Recent:
        """The newest of it, as many as ``past`` holds."""
        assert self.position is not None
        first = self.x.shape[1] - past.x.shape[1]
        return Recent(self.x[:, first:].to(past.x.dtype), self.position[:, first:])


def line_up(x: Tensor, layout: Layout, past: Recent | None = None) -> Line:
    """Line up the tokens of this call behind those of ``past``. (B, T, D)"""
    if past is None and layout.dense:
        return Line(x, None, None)
    if past is None:
        position, place = layout.position, layout.once(_places, lambda: _places(layout.position))
    else:
        x, position = torch.cat([past.x, x], dim=1), torch.cat([past.position, layout.position], dim=1)
        place = _places(position)
    x = x.masked_fill((position == PAD)[..., None], 0.0)
    lined = torch.zeros_like(x).scatter(1, place[..., None].expand_as(x), x)
    return Line(lined, torch.zeros_like(position).scatter(1, place, position), place[:, -layout.position.shape[1] :])


def _places(position: Tensor) -> Tensor:
    """Where each token goes: padding first, real tokens last, both in their order. (B, S)"""
    padding = (position == PAD).long()
    total = padding.sum(1, keepdim=True)
    return torch.where(padding.bool(), padding.cumsum(1) - 1, total + (1 - padding).cumsum(1) - 1)


def must_read_every_token(mask: Mask, who: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is plainly causal or full."""
    if not mask.plain:
        raise ValueError(
            f"mask must be causal or full for {who}, which has its own reach, but got {type(mask).__name__}."
        )


def must_look_back(mask: Mask, who: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is causal, as a state needs it to be."""
    if not mask.causal:
        raise ValueError(f"mask must be causal to go on from a state, but this {who} reads both ways.")
