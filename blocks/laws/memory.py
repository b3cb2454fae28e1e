"""Laws of a mixer that reads a memory."""

from __future__ import annotations

from typing import Any

import torch

from blocks.contracts import Layout, Memory, Mixer
from blocks.laws.reader import Reader
from blocks.laws.trying import B, D, T, agree, beside, draw, full, hold, run, with_padding


def _memory(mixer: Mixer[Any], length: int = 6) -> Memory:
    return Memory(draw(mixer, B, length, D, seed=2), full(mixer, B, length))


@torch.no_grad()
def reads_a_memory_step_by_step(mixer: Mixer[Any]) -> None:
    """Its keys are made once, at the first call, and serve the later ones, also those of reordered rows."""
    x, layout, memory = draw(mixer, B, T, D), full(mixer), _memory(mixer)
    whole = run(mixer, x, layout, memory)
    hold(whole.shape == x.shape, f"the output must have shape {tuple(x.shape)}, but has {tuple(whole.shape)}.")
    state, outputs = mixer.empty_state(B, T if isinstance(mixer, Reader) else 0), []
    for start, stop in ((0, 4), (4, 5)):
        y, state = mixer(x[:, start:stop], layout.slice(start, stop), state, memory)
        outputs.append(y)
    rows, last = torch.tensor([1, 0], device=x.device), layout.slice(5, T)
    theirs = Layout(last.position[rows], last.document[rows], heads=last.heads[rows])  # type: ignore[index]
    y, _ = mixer(x[rows, 5:], theirs, state.select(rows), memory)
    agree(y, whole[rows, 5:], "rows 1, 0 of the state of a memory")
    y, _ = mixer(x[:, 5:], last, state, memory)
    agree(torch.cat([*outputs, y], dim=1), whole, "a memory read in three calls")


@torch.no_grad()
def ignores_padding_in_a_memory(mixer: Mixer[Any]) -> None:
    x, layout, memory = draw(mixer, B, T, D), full(mixer), _memory(mixer)
    alone = run(mixer, x, layout, memory)
    noise = 9.0 * draw(mixer, B, 4, D, seed=3)
    longer = Memory(torch.cat([noise[:, :1], memory.x, noise[:, 1:]], dim=1), with_padding(memory.layout, 1, 3))
    agree(run(mixer, x, layout, longer), alone, "a memory with padding on both sides")


@torch.no_grad()
def reads_the_memory_of_its_document(mixer: Mixer[Any]) -> None:
    """Packed targets read the packed source of the same document only."""
    sizes, sources = (4, T - 4), (3, 5)
    xs = [draw(mixer, B, n, D, seed=n) for n in sizes]
    ms = [draw(mixer, B, n, D, seed=10 + n) for n in sources]
    ls, ks = [full(mixer, B, n) for n in sizes], [full(mixer, B, n) for n in sources]
    packed = run(mixer, torch.cat(xs, 1), beside(*ls), Memory(torch.cat(ms, 1), beside(*ks)))
    alone = [run(mixer, x, one, Memory(m, k)) for x, one, m, k in zip(xs, ls, ms, ks, strict=True)]
    agree(packed, torch.cat(alone, dim=1), "packed targets and their sources")
