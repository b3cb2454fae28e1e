"""What the tests of this family share: rows with padding anywhere, calls in pieces, and measured products."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import PAD, Layout, Mixer
from blocks.linear import _chunked

Definition = Callable[[Tensor], Tensor]
"""What a mixer must make of one document by itself, (T, D) -> (T, D)."""


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 or 16 tokens, so that a few dozen tokens cross many boundaries."""
    monkeypatch.setattr(_chunked, "SHORT", 8)
    monkeypatch.setattr(_chunked, "LONG", 16)


@pytest.fixture
def follows() -> Callable[[Mixer[Any], Definition], None]:
    """The mixer makes of every document what its definition says, however the documents lie in the rows."""

    def check(mixer: Mixer[Any], definition: Definition) -> None:
        for length in (1, 2, 16, 17, 45):
            x = torch.randn(2, length, mixer.d_model, dtype=torch.float64)
            expected = torch.stack([definition(row) for row in x])
            torch.testing.assert_close(mixer(x, Layout.full(2, length))[0], expected, rtol=1e-9, atol=1e-9)
        x, layout = scattered(mixer.d_model)
        y, _ = mixer(x, layout)
        for row, number in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
            at = layout.document[row] == number
            torch.testing.assert_close(y[row, at], definition(x[row, at]), rtol=1e-9, atol=1e-9)

    return check


@pytest.fixture
def goes_on() -> Callable[[Mixer[Any]], None]:
    """Any cut of a row gives the outputs, and the state, of the whole."""

    def check(mixer: Mixer[Any]) -> None:
        x, layout = scattered(mixer.d_model)
        whole, _ = mixer(x, layout)
        _, end = mixer(x, layout, mixer.empty_state(2, x.shape[1]))
        for sizes in ([1] * 70, [3] * 24, [17] * 5, [1, 40, 1, 1, 19, 8], [70]):
            state, parts, start = mixer.empty_state(2, x.shape[1]), [], 0
            for size in sizes:
                stop = min(start + size, x.shape[1])
                if start == stop:
                    break
                y, state = mixer(x[:, start:stop], layout.slice(start, stop), state)
                parts.append(y)
                start = stop
            real = layout.real
            torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], rtol=1e-9, atol=1e-9)
            for field in fields(end):
                now, then = getattr(state, field.name), getattr(end, field.name)
                torch.testing.assert_close(now, then, rtol=1e-9, atol=1e-9)

        head = mixer.empty_state(2, 40)  # a dense prompt forgets what its state held, and can be gone on from
        mixer(x[:, :20], Layout.full(2, 20), head)
        dense, used = mixer(x[:, :20], Layout.full(2, 20), mixer(x[:, 20:40], Layout.full(2, 20), head)[1])
        torch.testing.assert_close(dense, mixer(x[:, :20], Layout.full(2, 20))[0], rtol=1e-9, atol=1e-9)
        rest, _ = mixer(x[:, 20:], Layout.full(2, 70).slice(20, 70), used)
        torch.testing.assert_close(rest, mixer(x, Layout.full(2, 70))[0][:, 20:], rtol=1e-9, atol=1e-9)

    return check


@pytest.fixture
def costs_what_it_says() -> Callable[[Callable[[], Mixer[Any]]], None]:
    """The declared products are those that torch counts, for lengths of one chunk, a few, and some left over."""

    def check(mixer: Mixer[Any]) -> None:
        mixer = mixer.to("meta")
        for length in (1, 15, 16, 17, 50, 64):
            with FlopCounterMode(display=False) as counter:
                mixer(torch.empty(1, length, mixer.d_model, device="meta"), Layout.full(1, length, "meta"))
            assert mixer.cost(length).flops == counter.get_total_flops()
        assert mixer.cost(16_384).flops == 16 * mixer.cost(1_024).flops

    return check


@pytest.fixture
def survives() -> Callable[[Mixer[Any]], None]:
    """Outputs and gradients are finite for inputs of any size; in bfloat16, alone and by autocast, close to float32."""

    def check(mixer: Mixer[Any]) -> None:
        layout = Layout.full(2, 40)
        x = torch.randn(2, 40, mixer.d_model)
        for scale in (0.0, 1e-3, 1.0, 100.0, 1e4):
            mixer.zero_grad()
            scaled = (scale * x).requires_grad_()
            y, _ = mixer(scaled, layout)
            y.sum().backward()
            assert y.isfinite().all()
            assert scaled.grad.isfinite().all()
            assert all(p.grad.isfinite().all() for p in mixer.parameters())

        exact, _ = mixer(x, layout)
        with torch.autocast("cpu", torch.bfloat16):
            auto, _ = mixer(x, layout)
        mixer.bfloat16()
        rough, state = mixer(x.bfloat16(), layout, mixer.empty_state(2, 40) if mixer.mask.causal else None)
        assert rough.dtype == torch.bfloat16
        assert state is None or state.s.dtype == torch.float32
        for y in (auto, rough):
            assert (y.float() - exact).norm() < 0.03 * exact.norm()

    return check


@pytest.fixture
def refused() -> Callable[[str], AbstractContextManager[Any]]:
    """A refusal, word for word."""
    return lambda sentence: pytest.raises(ValueError, match=f"^{re.escape(sentence)}$")


def scattered(d_model: int) -> tuple[Tensor, Layout]:
    """Two rows of documents with padding before, between, inside and behind them. (2, 70, D)"""
    row = [PAD] * 3 + [0] * 20 + [1] * 6 + [PAD] * 5 + [1] * 5 + [2] * 31
    other = [0] * 33 + [PAD] * 18 + [0] * 2 + [1] * 1 + [PAD] * 16
    document = torch.tensor([row, other])
    position = torch.full_like(document, PAD)
    for r, number in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        at = document[r] == number
        position[r, at] = torch.arange(int(at.sum()))
    x = torch.randn(2, 70, d_model, dtype=torch.float64)
    x[document == PAD] *= 9.0
    return x, Layout(position, document)
