"""Laws of every mixer: attention, linear, recurrent, convolution, a stack."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks.contracts import PAD, Attention, Layer, Layout, Memory, Mixer, Stack, roles_of
from blocks.laws.reader import Reader
from blocks.laws.trying import (
    BF16,
    EXACT,
    QUIET,
    B,
    D,
    T,
    agree,
    beside,
    draw,
    full,
    hold,
    run,
    stirred,
    tree,
    unreached,
    with_padding,
)

TRIES = 8
"""How many inputs and starts may try to reach every parameter."""


def keeps_shape_and_dtype(mixer: Mixer[Any]) -> None:
    x = draw(mixer, B, T, D)
    y, state = mixer(x, full(mixer))
    hold(y.shape == x.shape, f"the output must have shape {tuple(x.shape)}, but has {tuple(y.shape)}.")
    hold(y.dtype == x.dtype, f"the output must be {x.dtype}, but is {y.dtype}.")
    hold(y.isfinite().all(), "every output must be finite, but some are not.")
    hold(state is None, "a call without a state must return none, but returned one.")


def uses_every_parameter(block: nn.Module) -> None:
    """Each parameter gets a gradient from some input and start, of a few: an expert waits for tokens of its own."""
    idle = [name for name, p in block.named_parameters() if p.requires_grad]
    for seed in range(TRIES):
        if not idle:
            return
        tried = stirred(block, seed)
        y = tried(draw(tried, B, T, D, seed=2 * seed), full(tried))[0]
        (y * draw(tried, *y.shape, seed=2 * seed + 1)).sum().backward()
        idle = [name for name in idle if unreached(tried.get_parameter(name))]
    hold(not idle, f"every parameter must get a gradient, but these get none: {', '.join(idle)}.")


@torch.no_grad()
def hides_the_future(mixer: Mixer[Any]) -> None:
    """Under a causal mask a token's output ignores every later token: not nearly, exactly."""
    if not mixer.mask.causal:
        return
    x, layout = draw(mixer, B, T, D), full(mixer)
    before = run(mixer, x, layout)
    for cut in (1, T // 2, T - 1):
        other = x.clone()
        other[:, cut:] = draw(mixer, B, T - cut, D, seed=1)
        off = (run(mixer, other, layout)[:, :cut] - before[:, :cut]).abs().max().item()
        hold(off == 0.0, f"tokens after {cut} must not change earlier outputs, but change them by {off:.2e}.")


@torch.no_grad()
def hides_what_its_mask_hides(mixer: Mixer[Any]) -> None:
    """A token changes the outputs only of those that the mask lets see it, and those of some of them."""
    if isinstance(mixer, Layer | Stack | Reader):  # in several steps a token reaches further
        return
    x, layout = QUIET * draw(mixer, B, T, D), full(mixer)
    before, allowed = run(mixer, x, layout), mixer.mask(layout, layout)
    reached = torch.zeros_like(allowed)
    for key in range(T):
        other = x.clone()
        other[:, key] = QUIET * draw(mixer, B, D, seed=1 + key)
        reached[:, :, key] = (run(mixer, other, layout) - before).abs().amax(-1) > EXACT * before.abs().max()
    wrong = (reached & ~allowed).nonzero().tolist()
    hold(not wrong, f"the mask hides {len(wrong)} pairs of tokens that change each other, {_pair(wrong)}.")
    away = ~torch.eye(T, dtype=torch.bool, device=x.device)
    hold((reached & away).any() or not (allowed & away).any(), "a token must change what others become, but does not.")


def _pair(wrong: list[list[int]]) -> str:
    return f"the first: token {wrong[0][1]} must not see token {wrong[0][2]}, but does" if wrong else "none"


@torch.no_grad()
def ignores_padding(mixer: Mixer[Any]) -> None:
    """Padding before or behind a row, whatever it holds, changes no real token."""
    x, layout = draw(mixer, B, T, D), full(mixer)
    alone = run(mixer, x, layout)
    noise = 9.0 * draw(mixer, B, 5, D, seed=1)
    for before, after in ((0, 5), (5, 0), (2, 3)):
        rows = torch.cat([noise[:, :before], x, noise[:, before : before + after]], dim=1)
        y = run(mixer, rows, with_padding(layout, before, after))
        hold(y.isfinite().all(), "what stands at padding must be finite, but is not.")
        agree(y[:, before : before + T], alone, f"padding of {before} before and {after} behind")
    ragged = torch.tensor([T, 1, T - 3], device=x.device)
    layout = Layout.padded(ragged, T)._replace(heads=tree(B, T, x.device))
    y = run(mixer, x, layout)
    for row, length in enumerate(ragged.tolist()):
        one = full(mixer, 1, length)._replace(heads=layout.heads[row : row + 1, :length])  # type: ignore[index]
        agree(
            y[row : row + 1, :length],
            run(mixer, x[row : row + 1, :length], one),
            f"a row of {length} among longer ones",
        )


@torch.no_grad()
def keeps_documents_apart(mixer: Mixer[Any]) -> None:
    """Documents packed into one row mix as they would in rows of their own."""
    lengths = (4, 1, T - 5)
    parts = [draw(mixer, B, n, D, seed=n) for n in lengths]
    layouts = [full(mixer, B, n) for n in lengths]
    packed = run(mixer, torch.cat(parts, dim=1), beside(*layouts))
    alone = torch.cat([run(mixer, x, one) for x, one in zip(parts, layouts, strict=True)], dim=1)
    agree(packed, alone, "documents in one row and in rows of their own")


@torch.no_grad()
def steps_as_a_whole(mixer: Mixer[Any]) -> None:
    """Any split of a row into calls gives the outputs of one call, and a state that goes on alike."""
    if not mixer.mask.causal:
        return
    x, layout = draw(mixer, B, T, D), full(mixer)
    whole = run(mixer, x, layout)
    for split in ((T,), (1,) * T, (5, 1, T - 6), (1, T - 2, 1), (T - 1, 1)):
        agree(_in_calls(mixer, x, layout, split), whole, f"calls of {', '.join(map(str, split))} tokens")


def _in_calls(mixer: Mixer[Any], x: Tensor, layout: Layout, split: tuple[int, ...]) -> Tensor:
    state, outputs, start = mixer.empty_state(len(x), x.shape[1]), [], 0
    for size in split:
        y, state = mixer(x[:, start : start + size], layout.slice(start, start + size), state)
        hold(state is not None, "a call with a state must return one, but returned none.")
        outputs.append(y)
        start += size
    return torch.cat(outputs, dim=1)


@torch.no_grad()
def steps_through_documents(mixer: Mixer[Any]) -> None:
    """Packed documents can be cut anywhere, also in the middle of one."""
    if not mixer.mask.causal:
        return
    lengths = (5, 2, T - 7)
    layout = beside(*(full(mixer, B, n) for n in lengths))
    x = draw(mixer, B, T, D)
    whole = run(mixer, x, layout)
    for split in ((3, 4, T - 7), (6, T - 6), (1,) * T):
        agree(_in_calls(mixer, x, layout, split), whole, f"packed documents in calls of {', '.join(map(str, split))}")


@torch.no_grad()
def resumes_after_padding(mixer: Mixer[Any]) -> None:
    """Ragged prompts, padded on either side, go on as if each had been alone."""
    if not mixer.mask.causal:
        return
    x, more = draw(mixer, B, T, D), draw(mixer, B, 3, D, seed=1)
    lengths = torch.tensor([T, 2, T - 4], device=x.device)
    for side in ("left", "right"):
        layout = Layout.padded(lengths, T, side=side)
        _, state = mixer(x, layout, mixer.empty_state(B, T + 3))
        outputs, position = [], lengths[:, None]
        for step in range(3):
            one = Layout(position + step, torch.zeros_like(position))
            y, state = mixer(more[:, step : step + 1], one, state)
            outputs.append(y)
        resumed = torch.cat(outputs, dim=1)
        for row in range(B):
            alone = torch.cat([x[row][layout.real[row]], more[row]])[None]
            whole = run(mixer, alone, Layout.full(1, alone.shape[1], x.device))
            agree(resumed[row : row + 1], whole[:, -3:], f"a prompt of {int(lengths[row])} padded on the {side}")


@torch.no_grad()
def follows_its_rows(mixer: Mixer[Any]) -> None:
    """After the rows of a state are reordered and repeated, each goes on from its own past."""
    if not mixer.mask.causal:
        return
    x = draw(mixer, B, T, D)
    layout = Layout.full(B, T, x.device)
    _, state = mixer(x[:, :-1], layout.slice(0, T - 1), mixer.empty_state(B, T))
    rows = torch.tensor([2, 0, 2, 1], device=x.device)
    last = Layout.full(4, T, x.device).slice(T - 1, T)
    y, _ = mixer(x[rows, -1:], last, state.select(rows))
    agree(y, run(mixer, x, layout)[rows, -1:], "rows 2, 0, 2, 1 of a state")


@torch.no_grad()
def keeps_rows_apart(mixer: Mixer[Any]) -> None:
    x, layout = draw(mixer, B, T, D), full(mixer)
    before = run(mixer, x, layout)
    other = x.clone()
    other[1] = draw(mixer, T, D, seed=1)
    agree(run(mixer, other, layout)[[0, 2]], before[[0, 2]], "rows beside one that changed")


def survives_seeing_nothing(mixer: Mixer[Any]) -> None:
    """A row of nothing but padding gives finite numbers, forward and backward; attention gives zeros."""
    x = draw(mixer, B, T, D).requires_grad_()
    layout = full(mixer)
    blank = torch.full_like(layout.position, PAD)
    nothing = Layout(
        torch.cat([layout.position[:1], blank[1:]]),
        torch.cat([layout.document[:1], blank[1:]]),
        heads=torch.cat([layout.heads[:1], blank[1:]]),  # type: ignore[index]
    )
    y = mixer(x, nothing)[0]
    hold(y.isfinite().all(), "a row of padding must give finite outputs, but does not.")
    y[:1].square().sum().backward()
    _finite_gradients(mixer, x)
    if isinstance(mixer, Attention) and not isinstance(mixer, Layer | Stack):
        memory = Memory(draw(mixer, B, 5, D), Layout(blank[:, :5], blank[:, :5]))
        try:
            y = run(mixer, x, layout, memory)
        except ValueError:
            return  # reads no memory; the cross laws say so
        writers = [h.module for h in roles_of(mixer) if h.role == "writer"]
        bias = sum(h.parameter.abs().sum() for part in writers for h in roles_of(part) if h.role == "bias")
        if not bias:
            hold(not y.any(), f"a query that sees nothing must give zeros, but gives up to {y.abs().max():.2e}.")
        y.square().sum().backward()
        _finite_gradients(mixer, x)


def _finite_gradients(block: nn.Module, x: Tensor) -> None:
    gradients = [p.grad for p in block.parameters() if p.grad is not None] + [x.grad]
    bad = any(g is not None and not g.isfinite().all() for g in gradients)
    block.zero_grad(set_to_none=True)
    x.grad = None
    hold(not bad, "gradients must be finite beside rows that see nothing, but are not.")


def agrees_with_the_eager_kernel(mixer: Mixer[Any]) -> None:
    """Whatever kernel was picked, eager is the oracle, forward and backward."""
    hosts = [m for m in mixer.modules() if hasattr(m, "backend")]
    if not hosts:
        return
    oracle = copy.deepcopy(mixer)
    for m in oracle.modules():
        if hasattr(m, "backend"):
            m.backend = "eager"  # type: ignore[assignment]
    layouts = (full(mixer), with_padding(full(mixer, B, T - 4), 1, 3))
    for layout in layouts:
        results = []
        for one in (mixer, oracle):
            x = draw(mixer, B, T, D).requires_grad_()
            y = run(one, x, layout)
            (y * layout.real[..., None] * draw(mixer, *y.shape, seed=1)).sum().backward()
            gradients = [p.grad for p in one.parameters() if p.grad is not None]
            results.append([y * layout.real[..., None], x.grad, *gradients])
            one.zero_grad(set_to_none=True)
        for got, expected in zip(*results, strict=True):
            agree(got, expected, "the kernel and the eager oracle")


@torch.no_grad()
def survives_its_state_dict(block: nn.Module) -> None:
    """A copy that was changed and then loaded gives the very same bits."""
    x, layout = draw(block, B, T, D), full(block)
    before = block(x, layout)[0]
    other = copy.deepcopy(block)
    for p in other.parameters():
        p.add_(1.0)
    other.load_state_dict(block.state_dict())
    hold(torch.equal(other(x, layout)[0], before), "a loaded copy must give the same bits, but does not.")


def compiles(mixer: Mixer[Any]) -> None:
    """Compiled equals eager, and decoding does not compile anew from step to step."""
    torch._dynamo.reset()
    x, layout = draw(mixer, B, T, D), full(mixer)
    graphs = 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    with torch.no_grad():
        compiled = torch.compile(mixer, backend=count)
        agree(compiled(x, layout)[0], run(mixer, x, layout), "compiled and eager")
        if not mixer.mask.causal:
            return
        whole, state, seen = run(mixer, x, layout), mixer.empty_state(B, T), []
        for step in range(7):
            one = layout.slice(step, step + 1)
            y, state = compiled(x[:, step : step + 1], Layout(one.position.clone(), one.document.clone()), state)
            agree(y, whole[:, step : step + 1], f"compiled step {step}")
            seen.append(graphs)
        hold(seen[-1] == seen[2], f"steps must not compile anew, but the graphs so far were {seen}.")


@torch.no_grad()
def stands_bfloat16(mixer: Mixer[Any]) -> None:
    x, layout = draw(mixer, B, T, D), full(mixer)
    exact = run(mixer, x, layout)
    half = copy.deepcopy(mixer).to(torch.bfloat16)
    rounded = copy.deepcopy(half).to(exact.dtype)
    exact = run(rounded, x.bfloat16().to(exact.dtype), layout)  # the same weights and inputs, computed exactly
    y = run(half, x.bfloat16(), layout)
    hold(y.dtype == torch.bfloat16, f"bfloat16 must stay bfloat16, but became {y.dtype}.")
    off = ((y.to(exact.dtype) - exact).norm() / exact.norm().clamp_min(1e-12)).item()
    hold(off <= BF16, f"bfloat16 must stay within {BF16:.0%} of exact, but is off by {off:.1%}.")


def checkpoints(mixer: Mixer[Any]) -> None:
    """Recomputing the forward in the backward changes no gradient."""
    results = []
    for recompute in (False, True):
        x, layout = draw(mixer, B, T, D).requires_grad_(), full(mixer)
        y = checkpoint(run, mixer, x, layout, use_reentrant=False) if recompute else run(mixer, x, layout)
        (y * draw(mixer, *y.shape, seed=1)).sum().backward()
        results.append([x.grad, *(p.grad for p in mixer.parameters() if p.grad is not None)])
        mixer.zero_grad(set_to_none=True)
    for got, expected in zip(*results, strict=True):
        agree(got, expected, "gradients with and without checkpointing")
