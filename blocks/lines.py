"""Rows of tokens lined up, and convolutions along them.

A layout may pad, pack or resume a row anywhere. In a *line* the real tokens of a row stand side by side,
document after document, so that the token ``k`` places before another is ``k`` places before it, and a
*run* tells the documents apart. Convolutions never look past the end of a run, nor into the future: not even
by the rounding errors of a Fourier transform.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import PAD, Layout, State

DIRECT = 32
"""Tokens of a block in which a convolution is one matrix product."""

FOURIER = 64
"""Tokens from which on the step from one block to the next takes a Fourier transform, not a matrix product."""


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
    position: Tensor | None  # (B, S); None: each row is one document, first token to last
    place: Tensor | None  # (B, T) where in the line each token of this call stands; None: where it stood

    @property
    def run(self) -> Tensor | None:
        """(B, S), equal for the tokens of one document and for no others (but padding, where x is zero)."""
        return None if self.position is None else _counted(self.position) - self.position

    def restore(self, y: Tensor) -> Tensor:
        """The tokens of this call, where they stood. (B, S, F) -> (B, T, F)"""
        return y if self.place is None else y.gather(1, self.place[..., None].expand(-1, -1, y.shape[-1]))

    def recent(self, past: Recent) -> Recent:
        """The newest of it, as many as ``past`` holds."""
        assert self.position is not None
        first = self.x.shape[1] - past.x.shape[1]
        # Copies: views would keep the whole line from being freed.
        return Recent(self.x[:, first:].to(past.x.dtype, copy=True), self.position[:, first:].clone())


def line_up(x: Tensor, layout: Layout, past: Recent | None = None, end: Literal["left", "right"] = "right") -> Line:
    """Line up the tokens of this call behind those of ``past``, at one end of the line. (B, T, D)"""
    if past is None and layout.dense:
        return Line(x, None, None)
    position = layout.position
    if past is not None:
        x, position = torch.cat([past.x, x], dim=1), torch.cat([past.position, position], dim=1)
        place = _places(position, end)
    else:
        place = layout.once((_places, end), lambda: _places(position, end))
    x = x.masked_fill((position == PAD)[..., None], 0.0)
    lined = torch.zeros_like(x).scatter(1, place[..., None].expand_as(x), x)
    return Line(lined, torch.zeros_like(position).scatter(1, place, position), place[:, -layout.position.shape[1] :])


def _places(position: Tensor, end: Literal["left", "right"]) -> Tensor:
    """Where each token goes, if the real ones go to one end and padding to the other. (B, S)"""
    first = (position == PAD) if end == "right" else (position != PAD)
    count = first.long().cumsum(1)
    return torch.where(first, count - 1, count[:, -1:] + _counted(position) - count)


def _counted(like: Tensor) -> Tensor:
    """0, 1, 2, ... along the places of a line; a place is no position."""
    return torch.ones_like(like[:1]).cumsum(1) - 1


# Convolutions ------------------------------------------------------------------------------------------------------


def neighbours(x: Tensor, run: Tensor | None, back: int, ahead: int) -> list[Tensor]:
    """For each token the one ``back`` places before it, ..., itself, ..., the one ``ahead`` places behind it.

    Zero where its document has no such token. (B, S, D) -> back + 1 + ahead times (B, S, D)
    """
    S = x.shape[1]
    wide = F.pad(x, (0, 0, back, ahead))
    shifts = [wide[:, i : i + S] for i in range(back + 1 + ahead)]
    if run is None:
        return shifts
    runs = F.pad(run, (back, ahead))  # what is let in is zero in ``wide``, whatever run it is said to be
    return [s * (runs[:, i : i + S] == run)[..., None] for i, s in enumerate(shifts)]


def convolve_near(x: Tensor, taps: Tensor, run: Tensor | None = None, ahead: int = 0) -> Tensor:
    """Each channel's weighted sum over the nearest tokens of the document, ``ahead`` of them later ones. (B, S, D)

    ``taps``: the weight of each, in the order in which they stand. (back + 1 + ahead, D)
    """
    first, *others = neighbours(x, run, len(taps) - 1 - ahead, ahead)
    y = first * taps[0]
    for token, tap in zip(others, taps[1:], strict=True):
        y = torch.addcmul(y, token, tap)
    return y


def convolve(u: Tensor, taps: Tensor, run: Tensor | None = None, block: int | None = None) -> Tensor:
    """``y_t = sum of taps_k * u_{t-k}`` over the tokens of each document up to t, channel by channel. (B, S, D)

    A row is cut in halves, the halves in halves, and so on: what a first half adds to its second half is a
    convolution of its own, so a later token is never in the sum, and a document that reaches from one into
    the other is the only one that counts. S log2(S)^2 multiply-adds a channel for long rows.

    Args:
        u: What is convolved; zero at padding. Computed in float32 at least, whatever autocast says. (B, S, D)
        taps: The weight of a token by its distance, nearest first. (at most S, D)
        run: The documents. (B, S); None: one a row.
        block: Leave out pairs of tokens from different blocks of so many (a power of two); None: none.
    """
    S, base = u.shape[1], _base(u.shape[1], run is not None)
    with exactly(u.device):
        line = exact(u).permute(2, 0, 1)  # (D, B, S)
        taps = F.pad(exact(taps).T, (0, 2 * S - len(taps)))  # (D, 2 S)
        y = _within(line, taps, base)
        for n in _halves(S, base, block):
            y = y + _across(line, taps, run, n)
        return y.permute(1, 2, 0).to(u.dtype)


def convolve_flops(length: int, width: int, block: int | None = None) -> int:
    """What ``convolve`` spends on matrix products for one document; Fourier transforms are not counted."""
    base = _base(length, False)
    within = 0 if base == 1 else -(-length // base) * base * base
    halves = [n for n in _halves(length, base, block) if n < FOURIER]
    return 2 * width * (within + sum(_pairs(length, n) * n * n for n in halves))


def convolve_steps(length: int) -> int:
    """How many operations of ``convolve`` follow one another: one a level of halves, and the blocks themselves."""
    return 1 + len(_halves(length, _base(length, False), None))


def _base(length: int, packed: bool) -> int:
    return 1 if packed else min(DIRECT, length)


def _halves(length: int, base: int, block: int | None) -> list[int]:
    """The lengths of the halves of every level, shortest first."""
    levels = []
    while base < length and (block is None or 2 * base <= block):
        levels.append(base)
        base *= 2
    return levels


def _pairs(length: int, n: int) -> int:
    """How many first halves of ``n`` tokens have something behind them."""
    return -(-(length - n) // (2 * n))


def _within(u: Tensor, taps: Tensor, n: int) -> Tensor:
    """What the tokens of each block of ``n`` say to each other. (D, B, S)"""
    if n == 1:
        return u * taps[:, :1, None]
    D, B, S = u.shape
    blocks = -(-S // n)
    distance = _distances(n, u.device)
    weights = taps[:, distance.clamp_min(0)] * (distance >= 0)  # (D, from, to)
    y = F.pad(u, (0, blocks * n - S)).reshape(D, B * blocks, n) @ weights
    return y.view(D, B, blocks * n)[..., :S]


def _across(u: Tensor, taps: Tensor, run: Tensor | None, n: int) -> Tensor:
    """What the first half of each block of ``2 n`` says to its second half. (D, B, S)"""
    D, B, S = u.shape
    pairs = _pairs(S, n)
    cut = pairs * 2 * n - S
    first = F.pad(u, (0, cut)).view(D, B, pairs, 2 * n)[..., :n]
    if run is not None:
        runs = F.pad(run, (0, cut)).view(B, pairs, 2 * n)
        reaches = runs == runs[..., n : n + 1]  # the document that the second half begins with
        first = first * reaches[..., :n]
    if n < FOURIER:
        second = (first.reshape(D, B * pairs, n) @ taps[:, n + _distances(n, u.device)]).view(D, B, pairs, n)
    else:
        spectrum = torch.fft.rfft(first, 2 * n) * torch.fft.rfft(taps[:, : 2 * n])[:, None, None]
        second = torch.fft.irfft(spectrum, 2 * n)[..., n:]
    if run is not None:
        second = second * reaches[..., n:]
    return F.pad(F.pad(second, (n, 0)).flatten(2), (0, -cut))


def _distances(n: int, device: torch.device) -> Tensor:
    """How far each of ``n`` tokens stands behind each other. (from, to)"""
    place = torch.arange(n, device=device)
    return place - place[:, None]


def exact(x: Tensor) -> Tensor:
    """``x`` in float32 at least: what is summed over a whole row needs the digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def exactly(device: torch.device) -> AbstractContextManager[Any]:
    """Where autocast rounds no product."""
    supported = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if supported else nullcontext()
