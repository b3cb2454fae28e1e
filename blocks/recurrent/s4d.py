"""S4D: each channel drives a few complex oscillators that fade, and reads their sum.

    s_t = exp(dt A) s_{t-1} + (exp(dt A) - 1) / A u_t        y_t = 2 Re(C s_t) + skip u_t

One step is a recurrence; a whole row is a convolution. Rows are cut into chunks: inside one it is the
convolution, from chunk to chunk only the oscillators go, so that time and memory grow linearly.

Gu et al. 2022, https://arxiv.org/abs/2206.11893
Gu et al. 2021 (S4), https://arxiv.org/abs/2111.00396
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.lines import convolve, convolve_flops, exact, exactly, line_up
from blocks.recurrent._fused import must_look_back, must_read_every_token
from blocks.recurrent._scan import rounds, scan
from registry import register

CHUNK = 64


@dataclass(frozen=True, slots=True)
class Oscillators(State):
    """Where each oscillator stands after the last token: real and imaginary part, in float32 at least."""

    s: Tensor  # (B, D, N, 2)


@register("recurrent/s4d")
class S4D(Mixer[Oscillators]):
    """A diagonal state-space model, GELU and a gated linear map; both ways where the mask is full.

    How the oscillators fade, turn and step is their dynamics, which no weight decay shrinks; how they are read (C) is a
    matrix, which it does, both as in the authors' code.

    Args:
        d_state: Real numbers in the state of a channel; two make an oscillator.
        start: How fast the oscillators turn at the start: lin evenly spaced, inv crowded at slow ones.
        shortest, longest: Bounds of the time step dt at the start, log-uniform over the channels.
        dropout: Probability of dropping a feature before ``to_out`` while training.

    Raises:
        ValueError: ``d_state`` is not even and positive; not 0 < ``shortest`` <= ``longest``; the mask is neither
            plainly causal nor full.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        d_state: int = 64,
        start: Literal["lin", "inv"] = "lin",
        shortest: float = 0.001,
        longest: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, mask)
        must_read_every_token(mask, type(self).__name__)
        if d_state < 2 or d_state % 2:
            raise ValueError(f"d_state must be even and positive, two numbers for an oscillator, but got {d_state}.")
        if not 0 < shortest <= longest:
            raise ValueError(f"shortest must be positive and at most longest, but got {shortest} and {longest}.")
        self.there = Oscillation(d_model, d_state // 2, start, shortest, longest)
        self.back = None if mask.causal else Oscillation(d_model, d_state // 2, start, shortest, longest)
        self.skip = nn.Parameter(torch.randn(d_model))
        declare(self, skip="gain")
        self.dropout = nn.Dropout(dropout)
        self.to_gate = nn.Linear(d_model, d_model)
        self.to_out = declare(nn.Linear(d_model, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Oscillators | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Oscillators | None]:
        with exactly(x.device):
            if state is not None and x.shape[1] == 1:
                read, state = self._step(exact(x), layout, state)
            else:
                read, state = self._row(exact(x), layout, state)
            y = F.gelu(read + exact(x) * self.skip).to(x.dtype)
        y = self.dropout(y)
        return self.to_out(y) * torch.sigmoid(self.to_gate(y)), state

    def empty_state(self, rows: int, capacity: int) -> Oscillators:
        must_look_back(self.mask, type(self).__name__)
        return Oscillators(exact(self.skip.new_zeros(rows, *self.there.turn.shape, 2)))

    def cost(self, length: int) -> Cost:
        D, N = self.there.turn.shape
        chunks = -(-length // CHUNK)
        carried = 0 if chunks == 1 else 2 * 2 * D * chunks * CHUNK * 2 * N  # written and read
        kernel = convolve_flops(length if chunks == 1 else chunks * CHUNK, D, CHUNK)
        flops = (1 if self.back is None else 2) * (kernel + carried) + 2 * length * 2 * D * D
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=_steps(length))

    def path(self, distance: int, length: int) -> Path:
        return Path(1, _steps(distance + 1))

    def _step(self, x: Tensor, layout: Layout, state: Oscillators) -> tuple[Tensor, Oscillators]:
        """One token, as the recurrence has it. (B, 1, D)"""
        system = self.there.discrete()
        old = torch.view_as_complex(state.s)
        new = system.keep * old.masked_fill((layout.position == 0)[..., None], 0.0) + system.write * x.mT
        read = 2 * (system.read * new).real.sum(-1)[:, None]
        held = torch.where(layout.real[..., None], new, old)
        return read, Oscillators(torch.view_as_real(held))

    def _row(self, x: Tensor, layout: Layout, state: Oscillators | None) -> tuple[Tensor, Oscillators | None]:
        """Many tokens, chunk by chunk. (B, T, D)"""
        line = line_up(x, layout, end="left")
        u, run = line.x, line.run
        past = None
        if state is not None:
            first = layout.position[:, :1] if line.position is None else line.position[:, :1]
            past = torch.view_as_complex(state.s).masked_fill((first == 0)[..., None, None][:, 0], 0.0)
        there = self.there.discrete()
        y, entering = _chunks(there, u, run, past)
        if self.back is not None:
            flipped = None if run is None else run.flip(1)
            y = y + _chunks(self.back.discrete(), u.flip(1), flipped, None)[0].flip(1)
        if state is not None and entering is not None:
            s = _last(there, u, run, entering, layout.real.sum(1))
            s = torch.where(layout.real.any(1)[:, None, None, None], torch.view_as_real(s), state.s)
            state = Oscillators(s)
        return line.restore(y), state


class Discrete(NamedTuple):
    """A system in steps of one token: s_t = keep s_{t-1} + write u_t, y_t = 2 Re(read s_t). Complex, (D, N)"""

    log_keep: Tensor
    write: Tensor
    read: Tensor

    @property
    def keep(self) -> Tensor:
        return self.log_keep.exp()

    def kept(self, steps: Tensor) -> Tensor:
        """What is left after so many steps. (any) -> (D, N, any)"""
        return (self.log_keep.view(*self.log_keep.shape, *[1] * steps.ndim) * steps).exp()


def _steps(length: int) -> int:
    """A convolution inside each chunk, and a scan from chunk to chunk."""
    chunks = -(-length // CHUNK)
    return 1 if chunks == 1 else rounds(chunks) + 2


class Oscillation(nn.Module):
    """The oscillators of every channel: how they fade, turn, are driven and read."""

    def __init__(self, d_model: int, n: int, start: Literal["lin", "inv"], shortest: float, longest: float) -> None:
        super().__init__()
        order = torch.arange(n)
        turns = {"lin": math.pi * order, "inv": 2 * n / math.pi * (2 * n / (2 * order + 1) - 1)}
        log_dt = math.log(shortest) + torch.rand(d_model) * (math.log(longest) - math.log(shortest))
        self.log_dt = nn.Parameter(log_dt)
        self.log_fade = nn.Parameter(torch.full((d_model, n), math.log(0.5)))
        self.turn = nn.Parameter(turns[start].repeat(d_model, 1))
        self.read = nn.Parameter(torch.randn(d_model, n, 2) * 0.5**0.5)
        declare(self, log_dt="dynamics", log_fade="dynamics", turn="dynamics", read="matrix")

    def discrete(self) -> Discrete:
        """The system that holds its input still over each time step."""
        dt = exact(self.log_dt).exp()[:, None]
        a = torch.complex(-exact(self.log_fade).exp(), exact(self.turn))
        log_keep = a * dt
        return Discrete(log_keep, torch.expm1(log_keep) / a, torch.view_as_complex(exact(self.read)))


def _chunks(system: Discrete, u: Tensor, run: Tensor | None, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What a system says of a line that begins in the state ``past``, and its state at each chunk's start.

    (B, S, D), (B, D, N) -> (B, S, D), (D, B, M, N) of M chunks; no states if there is only one, from zero.
    """
    B, S, D = u.shape
    size = min(CHUNK, S)
    M = -(-S // size)
    age = torch.arange(size, device=u.device)
    weights = (system.read * system.write)[..., None] * system.kept(age)  # (D, N, size)
    u = F.pad(u, (0, 0, 0, M * size - S))
    run = None if run is None else F.pad(run, (0, M * size - S), value=-1)
    y = convolve(u, 2 * weights.real.sum(1).T, run, CHUNK)
    if M == 1 and past is None:
        return y, None

    chunk, drive = u.view(B, M, size, D), system.write[..., None] * system.kept(age.flip(0))
    keep = system.kept(torch.tensor(size, device=u.device))[:, None, None].expand(-1, B, M, -1)  # (D, B, M, N)
    if run is not None:  # only the document that a chunk ends with leaves it, only the one it begins with is met
        runs = run.view(B, M, size)
        met = torch.cat([runs[:, :1, 0], runs[:, :-1, -1]], dim=1)  # (B, M) whose state enters each chunk
        chunk = chunk * (runs == runs[..., -1:])[..., None]
        keep = keep * (met == runs[..., -1])[..., None]
    written = chunk.permute(3, 0, 1, 2).reshape(D, B * M, size) @ _parts(drive).mT  # (D, B · M, 2 N)
    written = torch.complex(*written.chunk(2, dim=-1)).view(D, B, M, -1)
    before = torch.zeros_like(written[:, :, :1]) if past is None else past.transpose(0, 1)[:, :, None]
    written = torch.cat([before, written[:, :, :-1]], dim=2)
    keep = torch.cat([torch.zeros_like(keep[:, :, :1]), keep[:, :, :-1]], dim=2)
    entering = scan(keep.flatten(0, 1), written.flatten(0, 1)).view(D, B, M, -1)

    reading = 2 * _parts((system.read[..., None] * system.kept(age + 1)).conj())  # (D, 2 N, size)
    read = _parts(entering.reshape(D, B * M, -1).mT).mT @ reading
    read = read.view(D, B, M, size).permute(1, 2, 3, 0)
    if run is not None:
        read = read * (runs == met[..., None])[..., None]
    return (y + read.reshape(B, M * size, D))[:, :S], entering


def _last(system: Discrete, u: Tensor, run: Tensor | None, entering: Tensor, count: Tensor) -> Tensor:
    """The state after the first ``count`` (B,) tokens of a line. (B, D, N)"""
    D, B = entering.shape[:2]
    size = min(CHUNK, u.shape[1])
    last = (count - 1).clamp_min(0)  # (B,)
    chunk, place = last // size, last % size
    age = torch.arange(size, device=u.device)
    at = (last[:, None] - age).clamp_min(0)  # (B, size), newest first
    counts = age <= place[:, None]
    s = entering[:, torch.arange(B, device=u.device), chunk] * system.kept(place + 1).transpose(1, 2)
    if run is not None:
        newest = run.gather(1, last[:, None])
        counts = counts & (run.gather(1, at) == newest)
        met = run.gather(1, (last - place - 1).clamp_min(0)[:, None])
        s = s * (met == newest)
    seen = u.gather(1, at[..., None].expand(-1, -1, D)) * counts[..., None]
    drive = system.write[..., None] * system.kept(age)
    written = seen.permute(2, 0, 1) @ _parts(drive).mT  # (D, B, 2 N)
    return (s + torch.complex(*written.chunk(2, dim=-1))).transpose(0, 1)


def _parts(z: Tensor) -> Tensor:
    """Real and imaginary parts of complex numbers, one under the other. (D, N, any) -> (D, 2 N, any)"""
    return torch.cat([z.real, z.imag], dim=1)
