"""Hyena: a convolution as long as the row, between two gates, its weights spoken by a small network of time.

    v, a, b = short convolutions of three linear maps of x
    y = to_out(b * (h conv (a * v) + skip * (a * v)))        h_k = fade(k) * network(k)

Poli et al. 2023, https://arxiv.org/abs/2302.10866
van der Hoeven 1997 (convolving online, as the causal form does), https://doi.org/10.1145/258726.258738
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.convolution._mask import must_be_plain, must_look_back
from blocks.lines import Recent, convolve, convolve_flops, convolve_near, convolve_steps, exact, exactly, line_up
from registry import register

TAPS = 3  # of the short convolutions
WIDTH = 64  # of the network of time
FASTEST, SLOWEST, FADED = 0.3, 1.5, 0.01  # of the time scale: where the channels have faded to a hundredth


@dataclass(frozen=True, slots=True)
class Spoken(State):
    """The long filter, which is the same for every row and from step to step."""

    taps: Tensor  # (capacity + 1, D), furthest first

    def select(self, rows: Tensor) -> Self:
        return self


@dataclass(frozen=True, slots=True)
class HyenaState(State):
    """All that a long convolution reads again."""

    projected: Recent  # (B, 2, 3 D) what the short convolutions look back at
    gated: Recent  # (B, capacity, D) what the long one does
    spoken: Spoken


@register("convolution/hyena")
class Hyena(Mixer[HyenaState]):
    """Gated long convolution with filters given by a small network, of order two.

    ``form=published`` is the authors' code: the short convolutions have biases; the network has three hidden layers
    that share their frequencies, not two with frequencies of their own; its bands turn 0 to ``bands - 1`` times in the
    time scale, not 1 to ``bands``; dropout acts before the long convolution, not before ``to_out``. In both forms the
    matrices of the network decay like all matrices (the authors' do not), and the frequencies do not.

    Args:
        time_scale: Tokens in which the filters' time goes from 0 to 1; about the length of a row.
        bands: Sines and cosines of the time that the network reads.
        frequency: How fast the sines inside the network turn at the start; they are learned.
        form: Four details, see above: plain, or published as the authors have them.
        dropout: Probability of dropping a feature while training.

    Raises:
        ValueError: ``time_scale`` or ``bands`` is not positive; ``form`` is neither; the mask is neither plainly causal
            nor full.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        /,
        *,
        time_scale: int = 512,
        bands: int = 8,
        frequency: float = 10.0,
        form: Literal["plain", "published"] = "plain",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, mask)
        must_be_plain(mask, type(self).__name__)
        if time_scale < 1:
            raise ValueError(f"time_scale must be at least 1, but got {time_scale}.")
        if bands < 1:
            raise ValueError(f"bands must be at least 1, but got {bands}.")
        if form not in ("plain", "published"):
            raise ValueError(f"form must be plain or published, but got {form!r}.")
        self.ahead = 0 if mask.causal else TAPS - 1
        n_taps = TAPS + self.ahead
        self.to_in = nn.Linear(d_model, 3 * d_model)
        self.taps = nn.Parameter((2 * torch.rand(n_taps, 3 * d_model) - 1) / n_taps**0.5)  # oldest first
        published = form == "published"
        self.bias = nn.Parameter((2 * torch.rand(3 * d_model) - 1) / n_taps**0.5) if published else None
        self.filter = Filter(d_model, 1 if mask.causal else 2, time_scale, bands, frequency, published)
        self.skip = nn.Parameter(torch.randn(d_model))
        declare(self, taps="matrix", bias="bias", skip="gain")
        self.dropout = nn.Dropout(0.0 if published else dropout)
        self.dropout_gated = nn.Dropout(dropout if published else 0.0)
        self.to_out = declare(nn.Linear(d_model, d_model), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: HyenaState | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, HyenaState | None]:
        near = line_up(self.to_in(x), layout, None if state is None else state.projected)
        mixed = near.restore(convolve_near(near.x, self.taps, near.run, self.ahead))
        v, a, b = (mixed if self.bias is None else mixed + self.bias).chunk(3, dim=-1)  # (B, T, D)

        u = self.dropout_gated(a * v)
        far = line_up(u, layout, None if state is None else state.gated)
        if state is None or x.shape[1] > 1:
            read = far.restore(self._convolved(far.x, far.run))
        else:
            read = self._newest(far.x, far.run, state.spoken)
        y = self.to_out(self.dropout(b * (read + self.skip * u)))
        if state is None:
            return y, None
        return y, HyenaState(near.recent(state.projected), far.recent(state.gated), state.spoken)

    def empty_state(self, rows: int, capacity: int) -> HyenaState:
        must_look_back(self.mask, type(self).__name__)
        like, D = self.to_out.weight, self.d_model
        return HyenaState(
            Recent.empty(like, rows, TAPS - 1, 3 * D), Recent.empty(like, rows, capacity, D), self._speak(capacity + 1)
        )

    def cost(self, length: int) -> Cost:
        D, directions = self.d_model, 1 if self.mask.causal else 2
        flops = 2 * length * (4 * D * D + self.filter.weights) + directions * convolve_flops(length, D)
        state = self.empty_state(1, length).bytes() if self.mask.causal else 0
        return Cost(sum(p.numel() for p in self.parameters()), flops, state, steps=1 + convolve_steps(length))

    def path(self, distance: int, length: int) -> Path:
        return Path(1, 1 + convolve_steps(distance + 1))

    def _convolved(self, u: Tensor, run: Tensor | None) -> Tensor:
        """The long convolution of a line; under a full mask one from either side. (B, S, D)"""
        on, *back = self.filter(u.shape[1], u.device)
        y = convolve(u, on, run)
        for taps in back:
            y = y + convolve(u.flip(1), taps, None if run is None else run.flip(1)).flip(1)
        return y

    def _newest(self, u: Tensor, run: Tensor | None, spoken: Spoken) -> Tensor:
        """The long convolution at the last place of a line only. (B, 1, D)"""
        assert run is not None
        # What was kept can not learn.
        taps = self._furthest_first(u.shape[1]) if torch.is_grad_enabled() else spoken.taps
        read = u * (run == run[:, -1:])[..., None] * taps
        return read.sum(1, keepdim=True).to(u.dtype)

    @torch.no_grad()
    def _speak(self, length: int) -> Spoken:
        return Spoken(self._furthest_first(length))

    def _furthest_first(self, length: int) -> Tensor:
        """The causal filter. (length, D)"""
        (taps,) = self.filter(length, self.to_out.weight.device)
        return taps.flip(0)


class Filter(nn.Module):
    """The weight of a token, channel by channel and in each direction, by how far away it stands."""

    def __init__(
        self, d_model: int, directions: int, time_scale: int, bands: int, frequency: float, published: bool
    ) -> None:
        super().__init__()
        self.time_scale, self.bands, self.directions, self.published = time_scale, bands, directions, published
        widths = [1 + 2 * bands, WIDTH, WIDTH, *[WIDTH] * published]
        self.layers = nn.ModuleList([nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths)])
        self.frequency = nn.Parameter(torch.full((1 if published else len(self.layers), WIDTH), frequency))
        declare(self, frequency="dynamics")
        self.to_taps = nn.Linear(WIDTH, directions * d_model, bias=False)

    def forward(self, length: int, device: torch.device) -> tuple[Tensor, ...]:
        """The weights of ``length`` distances, nearest first; a tensor a direction. (length, D)"""
        dtype = exact(self.frequency).dtype
        time = torch.arange(length, device=device, dtype=dtype)[:, None] / self.time_scale  # of distances, not places
        slowest, fastest = (1e-4, self.bands - 1.0) if self.published else (1.0, float(self.bands))
        angle = 2 * math.pi * time * torch.linspace(slowest, fastest, self.bands, device=device, dtype=dtype)
        h = torch.cat([time, angle.cos(), angle.sin()], dim=-1)
        with exactly(torch.device(device)):  # sine behind fast sine makes any rounding larger
            layers = cast(list[nn.Linear], list(self.layers))
            for layer, frequency in zip(layers, self.frequency.expand(len(layers), -1), strict=True):
                h = torch.sin(exact(frequency) * F.linear(h, exact(layer.weight), exact(layer.bias)))
            taps = F.linear(h, exact(self.to_taps.weight))
        rate = torch.linspace(1 / FASTEST, 1 / SLOWEST, self.to_taps.out_features // self.directions, device=device)
        fade = torch.exp(math.log(FADED) * time * rate.to(dtype))  # (length, D)
        return tuple(one * fade for one in taps.chunk(self.directions, dim=-1))

    @property
    def weights(self) -> int:
        """Multiply-adds for one distance."""
        return sum(layer.weight.numel() for layer in [*self.layers, self.to_taps])
