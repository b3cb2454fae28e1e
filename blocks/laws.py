"""The promises of the contracts as code, for our blocks and for yours.

A law takes a built block and raises ``Broken`` with a sentence where the block does not keep it.

    from blocks.laws import laws_of

    for law in laws_of(block):
        law(block)

``blocks.cases`` tries every registered name under every law.

Blocks are judged in float64 where exactness is meant: there ``EXACT`` tells right from wrong.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import (
    IGNORE,
    PAD,
    Attention,
    AttentionPosition,
    Cost,
    Embedding,
    EmbeddingPosition,
    Ffn,
    Head,
    Layer,
    Layout,
    Mask,
    Memory,
    Mixer,
    Model,
    Norm,
    Residual,
    Stack,
)

EXACT = 1e-9
"""Largest difference, relative to the largest value, between two ways to compute one thing in float64."""

BF16 = 0.06
"""Largest error of bfloat16, as the norm of the difference over the norm of the float64 result."""

B, T, D, V = 3, 13, 64, 29

DOCUMENTS = 3
"""How many documents a law packs into one row at most."""

TRIES = 8
"""How many inputs and starts may try to reach every parameter."""


class Broken(AssertionError):  # noqa: N818  (an adjective, as in a broken law)
    """A block that does not keep a law. The message says how."""


def _hold(condition: Any, sentence: str) -> None:
    if not condition:
        raise Broken(sentence)


def _same(got: Tensor, expected: Tensor, what: str, tolerance: float = EXACT) -> None:
    _hold(got.shape == expected.shape, f"{what}: the shape must be {tuple(expected.shape)}, but is {tuple(got.shape)}.")
    if got.numel() == 0:
        return
    _hold(got.isfinite().all(), f"{what}: every number must be finite, but some are not.")
    off = (got - expected).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    _hold(off <= tolerance * scale, f"{what}: must agree to {tolerance:.0e}, but differ by {off:.2e}.")


# What blocks are tried on ------------------------------------------------------------------------------------------


def _place(block: nn.Module) -> dict[str, Any]:
    """The dtype and device of a block; float64 for one without parameters."""
    for tensor in itertools.chain(block.parameters(), block.buffers()):
        if tensor.is_floating_point():
            return {"dtype": tensor.dtype, "device": tensor.device}
    return {"dtype": torch.float64, "device": torch.get_default_device()}


def _draw(block: nn.Module, *shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that are the same on every device and in every dtype, up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(**_place(block))


def _tree(rows: int, length: int, device: Any) -> Tensor:
    """Heads of a dependency tree in each row: each token hangs on an earlier one or (the first) on itself."""
    generator = torch.Generator().manual_seed(7)
    draw = torch.rand(rows, length, generator=generator)
    return (draw * torch.arange(length)).floor().long().to(device)


def _full(block: nn.Module, rows: int = B, length: int = T) -> Layout:
    device = _place(block)["device"]
    return Layout.full(rows, length, device)._replace(heads=_tree(rows, length, device))


def _padded(layout: Layout, before: int, after: int) -> Layout:
    """``layout`` with padding on both sides."""

    def pad(t: Tensor) -> Tensor:
        return nn.functional.pad(t, (before, after), value=PAD)

    heads = None if layout.heads is None else pad(layout.heads)
    return Layout(pad(layout.position), pad(layout.document), heads=heads)


def _beside(*layouts: Layout) -> Layout:
    """Documents of several layouts side by side in one row."""
    document = torch.cat([torch.full_like(one.document, i) for i, one in enumerate(layouts)], dim=1)
    heads = torch.cat([one.heads for one in layouts if one.heads is not None], dim=1)
    return Layout(torch.cat([one.position for one in layouts], dim=1), document, heads=heads)


def _run(mixer: Mixer[Any], x: Tensor, layout: Layout, memory: Memory | None = None) -> Tensor:
    y, _ = mixer(x, layout, None, memory)
    return y


class Reader(Mixer[Any]):
    """A decoder and a source that it reads: a mixer like any other, so that every law can judge it.

    Whatever rows a law takes out and whatever documents it packs, each reads the same source, and goes on reading
    it; that each reads its own is said by the laws of a memory.
    """

    source: Tensor  # (1, DOCUMENTS * S, D)
    position: Tensor  # (1, DOCUMENTS * S), as the next two
    document: Tensor
    heads: Tensor

    def __init__(self, decoder: Mixer[Any], length: int = 5) -> None:
        super().__init__(decoder.d_model, decoder.mask)
        self.decoder = decoder
        self.length = length
        layout = _beside(*[_full(decoder, 1, length)] * DOCUMENTS)
        self.register_buffer("source", _draw(decoder, 1, length, D, seed=5).repeat(1, DOCUMENTS, 1), persistent=False)
        for name in ("position", "document", "heads"):
            self.register_buffer(name, getattr(layout, name), persistent=False)

    def forward(self, x: Tensor, layout: Layout, state: Any = None, memory: Memory | None = None) -> tuple[Tensor, Any]:
        return self.decoder(x, layout, state, memory or self._copies(len(x), layout.dense))

    def _copies(self, rows: int, dense: bool) -> Memory:
        """The source in every row: once where the row is one document, else once for each that there may be."""
        length = self.length if dense else self.length * DOCUMENTS
        position, document, heads = (t[:, :length].expand(rows, -1) for t in (self.position, self.document, self.heads))
        return Memory(self.source[:, :length].expand(rows, -1, -1), Layout(position, document, dense, heads))

    def empty_state(self, rows: int, capacity: int) -> Any:
        return self.decoder.empty_state(rows, capacity)

    def cost(self, length: int) -> Cost:
        return self.decoder.cost(length)


# Laws of every mixer: attention, linear, recurrent, convolution, a stack -------------------------------------------


def keeps_shape_and_dtype(mixer: Mixer[Any]) -> None:
    x = _draw(mixer, B, T, D)
    y, state = mixer(x, _full(mixer))
    _hold(y.shape == x.shape, f"the output must have shape {tuple(x.shape)}, but has {tuple(y.shape)}.")
    _hold(y.dtype == x.dtype, f"the output must be {x.dtype}, but is {y.dtype}.")
    _hold(y.isfinite().all(), "every output must be finite, but some are not.")
    _hold(state is None, "a call without a state must return none, but returned one.")


def stirred(block: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with every parameter a little off: one that starts at zero still passes on what it multiplies."""
    block = copy.deepcopy(block)
    with torch.no_grad():
        for number, p in enumerate(block.parameters()):
            p.add_(0.03 * _draw(block, *p.shape, seed=1000 * seed + number))
    return block


def uses_every_parameter(block: nn.Module) -> None:
    """Each parameter gets a gradient from some input and start, of a few: an expert waits for tokens of its own."""
    idle = [name for name, p in block.named_parameters() if p.requires_grad]
    for seed in range(TRIES):
        if not idle:
            return
        tried = stirred(block, seed)
        y = tried(_draw(tried, B, T, D, seed=2 * seed), _full(tried))[0]
        (y * _draw(tried, *y.shape, seed=2 * seed + 1)).sum().backward()
        idle = [name for name in idle if _idle(tried.get_parameter(name))]
    _hold(not idle, f"every parameter must get a gradient, but these get none: {', '.join(idle)}.")


def _idle(parameter: nn.Parameter) -> bool:
    return parameter.grad is None or not bool(parameter.grad.any())


@torch.no_grad()
def hides_the_future(mixer: Mixer[Any]) -> None:
    """Under a causal mask a token's output ignores every later token: not nearly, exactly."""
    if not mixer.mask.causal:
        return
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    before = _run(mixer, x, layout)
    for cut in (1, T // 2, T - 1):
        other = x.clone()
        other[:, cut:] = _draw(mixer, B, T - cut, D, seed=1)
        off = (_run(mixer, other, layout)[:, :cut] - before[:, :cut]).abs().max().item()
        _hold(off == 0.0, f"tokens after {cut} must not change earlier outputs, but change them by {off:.2e}.")


@torch.no_grad()
def ignores_padding(mixer: Mixer[Any]) -> None:
    """Padding before or behind a row, whatever it holds, changes no real token."""
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    alone = _run(mixer, x, layout)
    noise = 9.0 * _draw(mixer, B, 5, D, seed=1)
    for before, after in ((0, 5), (5, 0), (2, 3)):
        rows = torch.cat([noise[:, :before], x, noise[:, before : before + after]], dim=1)
        y = _run(mixer, rows, _padded(layout, before, after))
        _hold(y.isfinite().all(), "what stands at padding must be finite, but is not.")
        _same(y[:, before : before + T], alone, f"padding of {before} before and {after} behind")
    ragged = torch.tensor([T, 1, T - 3], device=x.device)
    layout = Layout.padded(ragged, T)._replace(heads=_tree(B, T, x.device))
    y = _run(mixer, x, layout)
    for row, length in enumerate(ragged.tolist()):
        one = _full(mixer, 1, length)._replace(heads=layout.heads[row : row + 1, :length])  # type: ignore[index]
        _same(
            y[row : row + 1, :length],
            _run(mixer, x[row : row + 1, :length], one),
            f"a row of {length} among longer ones",
        )


@torch.no_grad()
def keeps_documents_apart(mixer: Mixer[Any]) -> None:
    """Documents packed into one row mix as they would in rows of their own."""
    lengths = (4, 1, T - 5)
    parts = [_draw(mixer, B, n, D, seed=n) for n in lengths]
    layouts = [_full(mixer, B, n) for n in lengths]
    packed = _run(mixer, torch.cat(parts, dim=1), _beside(*layouts))
    alone = torch.cat([_run(mixer, x, one) for x, one in zip(parts, layouts, strict=True)], dim=1)
    _same(packed, alone, "documents in one row and in rows of their own")


@torch.no_grad()
def steps_as_a_whole(mixer: Mixer[Any]) -> None:
    """Any split of a row into calls gives the outputs of one call, and a state that goes on alike."""
    if not mixer.mask.causal:
        return
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    whole = _run(mixer, x, layout)
    for split in ((T,), (1,) * T, (5, 1, T - 6), (1, T - 2, 1), (T - 1, 1)):
        _same(_in_calls(mixer, x, layout, split), whole, f"calls of {', '.join(map(str, split))} tokens")


def _in_calls(mixer: Mixer[Any], x: Tensor, layout: Layout, split: tuple[int, ...]) -> Tensor:
    state, outputs, start = mixer.empty_state(len(x), x.shape[1]), [], 0
    for size in split:
        y, state = mixer(x[:, start : start + size], layout.slice(start, start + size), state)
        _hold(state is not None, "a call with a state must return one, but returned none.")
        outputs.append(y)
        start += size
    return torch.cat(outputs, dim=1)


@torch.no_grad()
def steps_through_documents(mixer: Mixer[Any]) -> None:
    """Packed documents can be cut anywhere, also in the middle of one."""
    if not mixer.mask.causal:
        return
    lengths = (5, 2, T - 7)
    layout = _beside(*(_full(mixer, B, n) for n in lengths))
    x = _draw(mixer, B, T, D)
    whole = _run(mixer, x, layout)
    for split in ((3, 4, T - 7), (6, T - 6), (1,) * T):
        _same(_in_calls(mixer, x, layout, split), whole, f"packed documents in calls of {', '.join(map(str, split))}")


@torch.no_grad()
def resumes_after_padding(mixer: Mixer[Any]) -> None:
    """Ragged prompts, padded on either side, go on as if each had been alone."""
    if not mixer.mask.causal:
        return
    x, more = _draw(mixer, B, T, D), _draw(mixer, B, 3, D, seed=1)
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
            whole = _run(mixer, alone, Layout.full(1, alone.shape[1], x.device))
            _same(resumed[row : row + 1], whole[:, -3:], f"a prompt of {int(lengths[row])} padded on the {side}")


@torch.no_grad()
def follows_its_rows(mixer: Mixer[Any]) -> None:
    """After the rows of a state are reordered and repeated, each goes on from its own past."""
    if not mixer.mask.causal:
        return
    x = _draw(mixer, B, T, D)
    layout = Layout.full(B, T, x.device)
    _, state = mixer(x[:, :-1], layout.slice(0, T - 1), mixer.empty_state(B, T))
    rows = torch.tensor([2, 0, 2, 1], device=x.device)
    last = Layout.full(4, T, x.device).slice(T - 1, T)
    y, _ = mixer(x[rows, -1:], last, state.select(rows))
    _same(y, _run(mixer, x, layout)[rows, -1:], "rows 2, 0, 2, 1 of a state")


@torch.no_grad()
def keeps_rows_apart(mixer: Mixer[Any]) -> None:
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    before = _run(mixer, x, layout)
    other = x.clone()
    other[1] = _draw(mixer, T, D, seed=1)
    _same(_run(mixer, other, layout)[[0, 2]], before[[0, 2]], "rows beside one that changed")


def survives_seeing_nothing(mixer: Mixer[Any]) -> None:
    """A row of nothing but padding gives finite numbers, forward and backward; attention gives zeros."""
    x = _draw(mixer, B, T, D).requires_grad_()
    layout = _full(mixer)
    blank = torch.full_like(layout.position, PAD)
    nothing = Layout(
        torch.cat([layout.position[:1], blank[1:]]),
        torch.cat([layout.document[:1], blank[1:]]),
        heads=torch.cat([layout.heads[:1], blank[1:]]),  # type: ignore[index]
    )
    y = mixer(x, nothing)[0]
    _hold(y.isfinite().all(), "a row of padding must give finite outputs, but does not.")
    y[:1].square().sum().backward()
    _finite_gradients(mixer, x)
    if isinstance(mixer, Attention) and not isinstance(mixer, Layer | Stack):
        memory = Memory(_draw(mixer, B, 5, D), Layout(blank[:, :5], blank[:, :5]))
        try:
            y = _run(mixer, x, layout, memory)
        except ValueError:
            return  # reads no memory; the cross laws say so
        bias = sum(p.abs().sum() for n, p in mixer.named_parameters() if n.endswith("to_out.bias"))
        if not bias:
            _hold(not y.any(), f"a query that sees nothing must give zeros, but gives up to {y.abs().max():.2e}.")
        y.square().sum().backward()
        _finite_gradients(mixer, x)


def _finite_gradients(block: nn.Module, x: Tensor) -> None:
    gradients = [p.grad for p in block.parameters() if p.grad is not None] + [x.grad]
    bad = any(g is not None and not g.isfinite().all() for g in gradients)
    block.zero_grad(set_to_none=True)
    x.grad = None
    _hold(not bad, "gradients must be finite beside rows that see nothing, but are not.")


def agrees_with_the_eager_kernel(mixer: Mixer[Any]) -> None:
    """Whatever kernel was picked, eager is the oracle, forward and backward."""
    hosts = [m for m in mixer.modules() if hasattr(m, "backend")]
    if not hosts:
        return
    oracle = copy.deepcopy(mixer)
    for m in oracle.modules():
        if hasattr(m, "backend"):
            m.backend = "eager"  # type: ignore[assignment]
    layouts = (_full(mixer), _padded(_full(mixer, B, T - 4), 1, 3))
    for layout in layouts:
        results = []
        for one in (mixer, oracle):
            x = _draw(mixer, B, T, D).requires_grad_()
            y = _run(one, x, layout)
            (y * layout.real[..., None] * _draw(mixer, *y.shape, seed=1)).sum().backward()
            gradients = [p.grad for p in one.parameters() if p.grad is not None]
            results.append([y * layout.real[..., None], x.grad, *gradients])
            one.zero_grad(set_to_none=True)
        for got, expected in zip(*results, strict=True):
            _same(got, expected, "the kernel and the eager oracle")


@torch.no_grad()
def survives_its_state_dict(block: nn.Module) -> None:
    """A copy that was changed and then loaded gives the very same bits."""
    x, layout = _draw(block, B, T, D), _full(block)
    before = block(x, layout)[0]
    other = copy.deepcopy(block)
    for p in other.parameters():
        p.add_(1.0)
    other.load_state_dict(block.state_dict())
    _hold(torch.equal(other(x, layout)[0], before), "a loaded copy must give the same bits, but does not.")


def compiles(mixer: Mixer[Any]) -> None:
    """Compiled equals eager, and decoding does not compile anew from step to step."""
    torch._dynamo.reset()
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    graphs = 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    with torch.no_grad():
        compiled = torch.compile(mixer, backend=count)
        _same(compiled(x, layout)[0], _run(mixer, x, layout), "compiled and eager")
        if not mixer.mask.causal:
            return
        whole, state, seen = _run(mixer, x, layout), mixer.empty_state(B, T), []
        for step in range(7):
            one = layout.slice(step, step + 1)
            y, state = compiled(x[:, step : step + 1], Layout(one.position.clone(), one.document.clone()), state)
            _same(y, whole[:, step : step + 1], f"compiled step {step}")
            seen.append(graphs)
        _hold(seen[-1] == seen[2], f"steps must not compile anew, but the graphs so far were {seen}.")


@torch.no_grad()
def stands_bfloat16(mixer: Mixer[Any]) -> None:
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    exact = _run(mixer, x, layout)
    half = copy.deepcopy(mixer).to(torch.bfloat16)
    rounded = copy.deepcopy(half).to(exact.dtype)
    exact = _run(rounded, x.bfloat16().to(exact.dtype), layout)  # the same weights and inputs, computed exactly
    y = _run(half, x.bfloat16(), layout)
    _hold(y.dtype == torch.bfloat16, f"bfloat16 must stay bfloat16, but became {y.dtype}.")
    off = ((y.to(exact.dtype) - exact).norm() / exact.norm().clamp_min(1e-12)).item()
    _hold(off <= BF16, f"bfloat16 must stay within {BF16:.0%} of exact, but is off by {off:.1%}.")


def checkpoints(mixer: Mixer[Any]) -> None:
    """Recomputing the forward in the backward changes no gradient."""
    results = []
    for recompute in (False, True):
        x, layout = _draw(mixer, B, T, D).requires_grad_(), _full(mixer)
        y = checkpoint(_run, mixer, x, layout, use_reentrant=False) if recompute else _run(mixer, x, layout)
        (y * _draw(mixer, *y.shape, seed=1)).sum().backward()
        results.append([x.grad, *(p.grad for p in mixer.parameters() if p.grad is not None)])
        mixer.zero_grad(set_to_none=True)
    for got, expected in zip(*results, strict=True):
        _same(got, expected, "gradients with and without checkpointing")


def costs_what_it_says(block: nn.Module) -> None:
    """Declared parameters, FLOPs and state bytes are the measured ones."""
    place = _place(block)
    for length in (16, 64):
        cost = block.cost(length)  # type: ignore[operator]
        parameters = sum(p.numel() for p in block.parameters())
        _hold(cost.parameters == parameters, f"cost says {cost.parameters} parameters, but there are {parameters}.")
        flops = _count_flops(block, length)
        _hold(cost.flops == flops, f"cost says {cost.flops} FLOPs for {length} tokens, but {flops} were counted.")
        _hold(cost.steps >= 0 and cost.path >= 0, f"steps and path must not be negative, but are {cost[3:]}.")
        if isinstance(block, Mixer) and block.mask.causal:
            measured = block.empty_state(1, length).bytes()
            says = f"cost says {cost.state_bytes} bytes of state in {place['dtype']} after {length} tokens"
            _hold(cost.state_bytes == measured, f"{says}, but the state holds {measured}.")


def _count_flops(block: nn.Module, length: int) -> int:
    ghost = copy.deepcopy(block).to("meta")
    if isinstance(ghost, Reader):
        ghost = Reader(ghost.decoder, length)  # what a decoder costs counts a source as long as the row
    x = torch.empty(1, length, D, dtype=_place(block)["dtype"], device="meta")
    layout = Layout.full(1, length, "meta")._replace(heads=torch.zeros(1, length, dtype=torch.long, device="meta"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ghost(x, layout)
    return counter.get_total_flops()


# Laws of a mixer that reads a memory -------------------------------------------------------------------------------


def _memory(mixer: Mixer[Any], length: int = 6) -> Memory:
    return Memory(_draw(mixer, B, length, D, seed=2), _full(mixer, B, length))


@torch.no_grad()
def reads_a_memory_step_by_step(mixer: Mixer[Any]) -> None:
    """Its keys are made once, at the first call, and serve the later ones, also those of reordered rows."""
    x, layout, memory = _draw(mixer, B, T, D), _full(mixer), _memory(mixer)
    whole = _run(mixer, x, layout, memory)
    _hold(whole.shape == x.shape, f"the output must have shape {tuple(x.shape)}, but has {tuple(whole.shape)}.")
    state, outputs = mixer.empty_state(B, T if isinstance(mixer, Reader) else 0), []
    for start, stop in ((0, 4), (4, 5)):
        y, state = mixer(x[:, start:stop], layout.slice(start, stop), state, memory)
        outputs.append(y)
    rows, last = torch.tensor([1, 0], device=x.device), layout.slice(5, T)
    theirs = Layout(last.position[rows], last.document[rows], heads=last.heads[rows])  # type: ignore[index]
    y, _ = mixer(x[rows, 5:], theirs, state.select(rows), memory)
    _same(y, whole[rows, 5:], "rows 1, 0 of the state of a memory")
    y, _ = mixer(x[:, 5:], last, state, memory)
    _same(torch.cat([*outputs, y], dim=1), whole, "a memory read in three calls")


@torch.no_grad()
def ignores_padding_in_a_memory(mixer: Mixer[Any]) -> None:
    x, layout, memory = _draw(mixer, B, T, D), _full(mixer), _memory(mixer)
    alone = _run(mixer, x, layout, memory)
    noise = 9.0 * _draw(mixer, B, 4, D, seed=3)
    longer = Memory(torch.cat([noise[:, :1], memory.x, noise[:, 1:]], dim=1), _padded(memory.layout, 1, 3))
    _same(_run(mixer, x, layout, longer), alone, "a memory with padding on both sides")


@torch.no_grad()
def reads_the_memory_of_its_document(mixer: Mixer[Any]) -> None:
    """Packed targets read the packed source of the same document only."""
    sizes, sources = (4, T - 4), (3, 5)
    xs = [_draw(mixer, B, n, D, seed=n) for n in sizes]
    ms = [_draw(mixer, B, n, D, seed=10 + n) for n in sources]
    ls, ks = [_full(mixer, B, n) for n in sizes], [_full(mixer, B, n) for n in sources]
    packed = _run(mixer, torch.cat(xs, 1), _beside(*ls), Memory(torch.cat(ms, 1), _beside(*ks)))
    alone = [_run(mixer, x, one, Memory(m, k)) for x, one, m, k in zip(xs, ls, ms, ks, strict=True)]
    _same(packed, torch.cat(alone, dim=1), "packed targets and their sources")


# Laws of a position inside attention -------------------------------------------------------------------------------


def _positions(mixer: nn.Module) -> list[AttentionPosition]:
    return [m for m in mixer.modules() if isinstance(m, AttentionPosition)]


@torch.no_grad()
def knows_order_as_declared(mixer: Mixer[Any]) -> None:
    """Without a position, tokens moved around give outputs moved along; with one, they do not."""
    if mixer.mask.causal or not mixer.mask.plain or mixer.prefers["position"] == "none":
        return  # with the last of these, a mixer says that it may know order by itself
    knows = any(p.acts for p in _positions(mixer))
    x, layout = 0.2 * _draw(mixer, B, T, D), _full(mixer)  # small, lest attention without a scale sees only itself
    rolled = _run(mixer, x.roll(1, dims=1), layout).roll(-1, dims=1)
    off = (rolled - _run(mixer, x, layout)).abs().max().item()
    if knows:
        _hold(off > 1e-6, "a position must tell the order of tokens, but moving them around changes nothing.")
    else:
        _hold(off <= EXACT, f"without a position the order must not matter, but it changes outputs by {off:.2e}.")


@torch.no_grad()
def stays_when_a_document_moves(mixer: Mixer[Any]) -> None:
    """A relative position depends on distances only."""
    if not mixer.mask.plain or not all(p.relative for p in _positions(mixer)):
        return
    x, layout = _draw(mixer, B, T, D), _full(mixer)
    there = layout._replace(position=layout.position + 50, dense=False)
    there = there._replace(heads=None if layout.heads is None else layout.heads + 50)
    _same(_run(mixer, x, there), _run(mixer, x, layout), "a document 50 tokens further", 1e-7)


# Laws of the other families ----------------------------------------------------------------------------------------


@torch.no_grad()
def norms_each_token_alone(norm: Norm) -> None:
    x = _draw(norm, B, T, D)
    y = norm(x)
    _hold(y.shape == x.shape and y.dtype == x.dtype, "a norm must keep shape and dtype, but does not.")
    _same(norm(x[:, 3:4]), y[:, 3:4], "a token alone and among others")
    wild = torch.cat([torch.zeros_like(x[:1]), 1e6 * x[:1], 1e-6 * x[:1]])
    _hold(norm(wild).isfinite().all(), "a norm of zeros, large and small numbers must be finite, but is not.")


def uses_every_parameter_of_features(module: nn.Module) -> None:
    if not any(p.requires_grad for p in module.parameters()):
        return
    x = _draw(module, B, T, D)
    y = module(x)
    (y * _draw(module, *y.shape, seed=1)).sum().backward()
    idle = [name for name, p in module.named_parameters() if p.requires_grad and _idle(p)]
    module.zero_grad(set_to_none=True)
    _hold(not idle, f"every parameter must get a gradient, but these get none: {', '.join(idle)}.")


@torch.no_grad()
def stays_within_its_document(ffn: Ffn) -> None:
    """Padding changes no real token, documents stay apart, and calls of any size agree."""
    x, layout = _draw(ffn, B, T, D), _full(ffn)
    whole = ffn(x, layout)[0]
    _hold(whole.shape == x.shape and whole.dtype == x.dtype, "a feed-forward must keep shape and dtype, but does not.")
    noise = 9.0 * _draw(ffn, B, 4, D, seed=1)
    y = ffn(torch.cat([noise[:, :2], x, noise[:, 2:]], dim=1), _padded(layout, 2, 2))[0]
    _same(y[:, 2 : 2 + T], whole, "padding on both sides")
    packed = ffn(torch.cat([x[:, :4], x], dim=1), _beside(layout.slice(0, 4), layout))[0]
    _same(packed[:, 4:], whole, "a document behind another")
    other = x.clone()
    other[:, 6:] = _draw(ffn, B, T - 6, D, seed=1)
    off = (ffn(other, layout)[0][:, :6] - whole[:, :6]).abs().max().item()
    _hold(off <= EXACT, f"later tokens must not change earlier ones, but change them by {off:.2e}.")
    state, outputs = ffn.empty_state(B), []
    for start, stop in ((0, 5), (5, 6), (6, T)):
        y, state = ffn(x[:, start:stop], layout.slice(start, stop), state)
        outputs.append(y)
    _same(torch.cat(outputs, dim=1), whole, "calls of 5, 1 and the rest")


def reports_finite_losses(ffn: Ffn) -> None:
    layout = _padded(_full(ffn, B, T - 2), 1, 1).fresh()
    ffn(_draw(ffn, B, T, D), layout)
    assert layout.scratch is not None
    for name, losses in layout.scratch.losses.items():
        for loss in losses:
            _hold(
                loss.ndim == 0 and loss.isfinite(), f"the auxiliary loss {name!r} must be a finite scalar, but is not."
            )


def ties_to_the_stream(residual: Residual) -> None:
    """A sublayer reads (B, T, D), and what it writes reaches the stream and the gradient."""
    shape = (B, T, D) if residual.streams == 1 else (B, T, residual.streams, D)
    x, y = _draw(residual, *shape).requires_grad_(), _draw(residual, B, T, D, seed=1).requires_grad_()
    seen = residual.read(x)
    _hold(seen.shape == (B, T, D), f"what a sublayer sees must be {(B, T, D)}, but is {tuple(seen.shape)}.")
    out = residual.write(x, y)
    _hold(out.shape == x.shape and out.dtype == x.dtype, "the stream must keep its shape and dtype, but does not.")
    (out.square().sum() + (seen * _draw(residual, B, T, D, seed=2)).sum()).backward()
    for name, p in residual.named_parameters():
        _hold(p.grad is not None and p.grad.any(), f"every parameter must get a gradient, but {name} gets none.")
    residual.zero_grad(set_to_none=True)
    _hold(x.grad is not None and x.grad.any(), "the stream must pass its gradient on, but does not.")


@torch.no_grad()
def hides_what_it_says(mask: Mask) -> None:
    """``causal`` and ``window`` are true of ``sees``, documents stay apart, and the rule broadcasts."""
    device = torch.get_default_device()
    layout = _beside(*(Layout.full(2, n, device)._replace(heads=_tree(2, n, device)) for n in (40, 7)))
    layout = _padded(layout, 2, 1)
    allowed = mask(layout, layout)
    n = layout.position.shape[1]
    _hold(allowed.shape == (2, n, n) and allowed.dtype == torch.bool, f"a mask must be bool {(2, n, n)}, but is not.")
    back = layout.position[:, :, None] - layout.position[:, None, :]
    same = (layout.document[:, :, None] == layout.document[:, None, :]) & layout.real[:, None, :]
    _hold(not (allowed & ~same).any(), "a mask must hide other documents and padding, but shows some.")
    _hold(not mask.causal or not (allowed & (back < 0)).any(), "a causal mask must hide the future, but shows some.")
    if mask.window is not None:
        far = (allowed & (back.abs() >= mask.window)).any()
        _hold(not far, f"a window of {mask.window} must hide what is farther, but shows some.")
    own = allowed.diagonal(dim1=1, dim2=2)[layout.real]
    _hold(own.all(), "a token must see itself, but some do not.")
    part = mask(layout.slice(5, 9), layout.slice(3, 30))
    _hold(torch.equal(part, allowed[:, 5:9, 3:30]), "a part of a mask must be that part of the whole, but is not.")


@torch.no_grad()
def embeds_each_token_by_its_place(position: EmbeddingPosition) -> None:
    x, layout = _draw(position, B, T, D), _full(position)
    y = position.embed(x, layout)
    _hold(y.shape == x.shape and y.dtype == x.dtype, "an embedding position must keep shape and dtype, but does not.")
    _same(position.embed(x[:, 4:], layout.slice(4, T)), y[:, 4:], "a later call")
    padded = position.embed(nn.functional.pad(x, (0, 0, 3, 1)), _padded(layout, 3, 1))
    _same(padded[:, 3 : 3 + T], y, "padding on both sides")
    still = torch.zeros_like(x)
    moved = position.embed(still, layout)
    _hold((moved[:, 0] - moved[:, 5]).abs().max() > 1e-6, "two places must be told apart, but look the same.")


@torch.no_grad()
def embeds_and_scores(embedding: Embedding) -> None:
    device = _place(embedding)["device"]
    tokens = torch.arange(V, device=device)[None]
    layout = Layout.full(1, V, device)
    x = embedding(tokens, layout)
    _hold(x.shape == (1, V, D), f"an embedding must give {(1, V, D)}, but gives {tuple(x.shape)}.")
    _same(embedding(tokens[:, 3:5], layout.slice(3, 5)), x[:, 3:5], "two tokens alone")
    scores = embedding.unembed(x)
    _hold(scores.shape == (1, V, V), f"unembed must give {(1, V, V)}, but gives {tuple(scores.shape)}.")


def scores_and_loses_alike(head: Head) -> None:
    """``loss`` is the cross-entropy of ``forward``, gradients too, however it is computed."""
    layout = _padded(_full(head, B, T - 3), 1, 2)
    x = _draw(head, B, T, D).requires_grad_()
    logits = head(x, layout)
    _hold(
        logits.shape[0] == B and logits.ndim in (2, 3),
        f"logits must be (B, T, V) or (B, C), but are {tuple(logits.shape)}.",
    )
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, logits.shape[-1], logits.shape[:-1], generator=generator).to(x.device)
    targets[0] = IGNORE
    expected = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE)
    loss = head.loss(x, layout, targets)
    _same(loss, expected, "the head's loss and the cross-entropy of its logits")
    parameters = [p for p in head.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, [x, *parameters], allow_unused=True)
    got = torch.autograd.grad(loss, [x, *parameters], allow_unused=True)
    for g, w in zip(got, wanted, strict=True):
        _hold((g is None) == (w is None), "the loss and the logits must use the same parameters, but do not.")
        if g is not None and w is not None:
            _same(g, w, "gradients of the loss and of the logits' cross-entropy")


def starts_at_chance(model: Model) -> None:
    """Before it has learned anything, a model knows nothing: its loss is ln V."""
    device = _place(model)["device"]
    tokens = torch.randint(0, V, (8, 24), generator=torch.Generator().manual_seed(0)).to(device)
    targets = torch.randint(0, V, (8, 24), generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        logits = model(tokens, *_model_inputs(model, tokens))[0]
    if logits.ndim == 2:
        targets = targets[:, 0]
    targets = targets % logits.shape[-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten()).item()
    chance = math.log(logits.shape[-1])
    _hold(abs(loss - chance) < 0.1, f"the first loss must be within 0.1 of {chance:.3f}, but is {loss:.3f}.")


def _model_inputs(model: Model, tokens: Tensor) -> tuple[Layout, None, Memory | None]:
    rows, length = tokens.shape
    layout = Layout.full(rows, length, tokens.device)._replace(heads=_tree(rows, length, tokens.device))
    encode = getattr(model, "encode", None)
    return layout, None, encode(tokens.flip(1), layout) if encode else None


def learns_a_tiny_batch(model: Model) -> None:
    """A few rows can be learned by heart: the loss falls below half of chance."""
    torch.manual_seed(0)
    model = copy.deepcopy(model).float().train()
    device = _place(model)["device"]
    tokens = torch.randint(0, V, (2, 12), generator=torch.Generator().manual_seed(0)).to(device)
    targets = torch.randint(0, V, (2, 12), generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss = chance = math.log(V)
    for _ in range(80):
        logits = model(tokens, *_model_inputs(model, tokens))[0]
        asked = targets % logits.shape[-1] if logits.ndim == 3 else targets[:, 0] % logits.shape[-1]
        step = nn.functional.cross_entropy(logits.flatten(0, -2), asked.flatten())
        optimizer.zero_grad()
        step.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = step.item()
        chance = math.log(logits.shape[-1])
        if loss < 0.4 * chance:
            return
    raise Broken(f"two rows must be learned in 80 steps, but the loss is still {loss:.2f} of {chance:.2f}.")


MIXER_LAWS: list[Callable[[Any], None]] = [
    keeps_shape_and_dtype,
    uses_every_parameter,
    hides_the_future,
    ignores_padding,
    keeps_documents_apart,
    steps_as_a_whole,
    steps_through_documents,
    resumes_after_padding,
    follows_its_rows,
    keeps_rows_apart,
    survives_seeing_nothing,
    agrees_with_the_eager_kernel,
    survives_its_state_dict,
    compiles,
    stands_bfloat16,
    checkpoints,
    costs_what_it_says,
]
MEMORY_LAWS: list[Callable[[Any], None]] = [
    reads_a_memory_step_by_step,
    ignores_padding_in_a_memory,
    reads_the_memory_of_its_document,
]
LAWS: list[tuple[type, list[Callable[[Any], None]]]] = [
    (Attention, [*MIXER_LAWS, knows_order_as_declared, stays_when_a_document_moves]),
    (Reader, [*MIXER_LAWS, *MEMORY_LAWS]),
    (Mixer, MIXER_LAWS),
    (Ffn, [uses_every_parameter, stays_within_its_document, reports_finite_losses, costs_what_it_says]),
    (Norm, [norms_each_token_alone, uses_every_parameter_of_features]),
    (Residual, [ties_to_the_stream]),
    (Mask, [hides_what_it_says]),
    (EmbeddingPosition, [embeds_each_token_by_its_place]),
    (Embedding, [embeds_and_scores]),
    (Head, [scores_and_loses_alike]),
    (Model, [starts_at_chance, learns_a_tiny_batch]),
]


def laws_of(block: Any) -> list[Callable[[Any], None]]:
    """The laws that a block of this kind is under."""
    laws = next((laws for kind, laws in LAWS if isinstance(block, kind)), [])
    reads = isinstance(block, Attention) and not block.mask.causal and not isinstance(block, Layer | Stack)
    return [*laws, *MEMORY_LAWS] if reads else laws
