"""Laws of what a block declares that it costs: each number is measured."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import (
    Attention,
    AttentionPosition,
    Ffn,
    Layer,
    Layout,
    Memory,
    Mixer,
    Model,
    Stack,
    joined,
    reaches,
)
from blocks.laws.reader import Reader
from blocks.laws.trying import D, V, draw, dtype_and_device, full, hold, stirred

C = TypeVar("C", FlopCounterMode, "Trace")

# What is measured ---------------------------------------------------------------------------------------------------


def count_flops(block: nn.Module, length: int, memory: int | None = None) -> int:
    """FLOPs of the forward of one row of ``length`` tokens; with ``memory``, of one that reads so many others."""
    return _counted(lambda: FlopCounterMode(display=False), block, length, memory).get_total_flops()


def trace(block: nn.Module, length: int, memory: int | None = None) -> Trace:
    """What the operations of such a forward write, and how many follow one another."""
    return _counted(Trace, block, length, memory)


def _counted(make: Callable[[], C], block: nn.Module, length: int, memory: int | None) -> C:
    """What counts during a forward on the meta device, where operations have shapes only.

    A block that decides by values has none there, and runs where it is, with products that can be counted.
    """
    ghost, device = copy.deepcopy(block).to("meta"), dtype_and_device(block)["device"]
    try:
        with torch.no_grad(), make() as counter:
            _forward(ghost, length, memory, torch.device("meta"))
    except RuntimeError:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), make() as counter:
            _forward(block, length, memory, device)
    return counter


def _forward(block: nn.Module, length: int, memory: int | None, device: torch.device) -> None:
    def whole(length: int) -> Layout:
        heads = torch.zeros(1, length, dtype=torch.long, device=device)
        return Layout.full(1, length, device)._replace(heads=heads).fresh()

    other = length if memory is None else memory
    if isinstance(block, Model):
        tokens = torch.zeros(1, length, dtype=torch.long, device=device)
        source = torch.zeros(1, other, dtype=torch.long, device=device)
        encode = getattr(block, "encode", None)
        read = None if encode is None else encode(source, whole(other))
        block(tokens, whole(length), None, read)
        return
    dtype = dtype_and_device(block)["dtype"]
    x = torch.ones(1, length, D, dtype=dtype, device=device)
    if memory is None:
        block(x, whole(length))
    else:
        block(x, whole(length), None, Memory(torch.ones(1, other, D, dtype=dtype, device=device), whole(other)))


class Trace(TorchDispatchMode):
    """Counts what operations write, and how many follow one another. What is written in place waits its turn.

    written: numbers that operations make, views aside.
    chain: the most operations of which each needs the one before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = self.chain = 0
        self._depth: dict[int, int] = {}
        self._alive: list[Any] = []  # a storage that is gone would lend its address to another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        depth = max((self._depth.get(_storage(t), 0) for t in read), default=0)
        if _computes(func):
            depth += _inside(func.name(), args)
            self.written += sum(t.numel() for t in made)
        for t in made:
            self._depth[_storage(t)] = max(depth, self._depth.get(_storage(t), 0))
            self.chain = max(self.chain, depth)
        self._alive += made
        return out


@functools.cache
def _computes(func: Any) -> bool:
    """It makes or changes numbers; else it returns a view of those that there are."""
    schema = func._schema
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
    return writes or all(r.alias_info is None for r in schema.returns)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _inside(name: str, args: Any) -> int:
    """Operations that follow one another inside one that torch runs as a whole."""
    name = name.partition("::")[2].partition(".")[0]
    if name == "scan":  # our own: sums of pairs, of pairs of pairs, ..., and back
        return 2 * max(1, (args[0].shape[1] - 1).bit_length())
    if name.startswith(("_fft", "cum", "logcumsumexp")) and len(args) > 1:
        axes = args[1] if isinstance(args[1], list | tuple) else [args[1]]
        return sum(max(1, (args[0].shape[axis] - 1).bit_length()) for axis in axes)
    return 1


def held(state: Any) -> int:
    """Bytes that a state keeps from being freed: a view counts with the whole of what it is a view of."""
    tensors = list(_tensors(state, set()))
    named = sum(t.numel() * t.element_size() for t in tensors)
    kept = {_storage(t): t.untyped_storage().nbytes() for t in tensors}
    return max(named, sum(kept.values()))


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that can be reached from a value, whatever holds it."""
    if isinstance(value, Tensor):
        yield value
        return
    if id(value) in seen or value is None or isinstance(value, str | int | float | type | nn.Module):
        return
    seen.add(id(value))
    inside: list[Any] = []
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, tuple | list | set | frozenset):
        inside = list(value)
    inside += vars(value).values() if hasattr(value, "__dict__") else []
    slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
    for one in [*inside, *(getattr(value, name, None) for name in slots)]:
        yield from _tensors(one, seen)


@torch.no_grad()
def state_after(block: Any, length: int, memory: int | None = None, calls: int = 3) -> int:
    """Bytes of the state of one row after ``length`` tokens, in one call or three, with a memory if it reads one.

    Raises:
        ValueError: The block can not go on from a past.
    """
    x, layout = draw(block, 1, length, D), full(block, 1, length)
    more: tuple[Memory, ...] = ()
    if isinstance(block, Ffn):
        state = block.empty_state(1)
    elif memory is None:
        state = block.empty_state(1, length)
    else:
        whole = full(block, 1, memory)
        if not any(isinstance(part, AttentionPosition) and part.needs_trees for part in block.modules()):
            whole = whole._replace(heads=None)
        state = block.empty_state(1, length if isinstance(block, Reader) else 0)
        more = (Memory(draw(block, 1, memory, D, seed=1), whole),)
    ends = [0, length] if calls == 1 else [0, length // 2, length - 1, length]
    for start, stop in itertools.pairwise(ends):
        _, state = block(x[:, start:stop], layout.slice(start, stop), state, *more)
    return held(state)


def grows(block: Mixer[Any]) -> bool:
    """What a causal mixer holds grows with the tokens that it has read."""
    return state_after(block, 24) > state_after(block, 12)


# Laws ---------------------------------------------------------------------------------------------------------------


def _tried(block: nn.Module, *lengths: int) -> list[tuple[int, int | None]]:
    """Lengths of a row, and of a memory where the block reads one."""
    with_source = isinstance(block, Reader) or (isinstance(block, Model) and hasattr(block, "encode"))
    alone = [] if with_source else [(n, None) for n in lengths]
    reads = with_source or (isinstance(block, Attention) and not block.mask.causal)
    return [*alone, *((n, n // 2 + 3) for n in lengths if reads)]


def _cost(block: Any, length: int, memory: int | None) -> Any:
    if isinstance(block, Reader):
        return block.decoder.cost(length, memory)  # type: ignore[call-arg]
    return block.cost(length) if memory is None else block.cost(length, memory)


def _words(length: int, memory: int | None) -> str:
    return f"{length} tokens" if memory is None else f"{length} tokens that read a memory of {memory}"


def costs_what_it_says(block: nn.Module) -> None:
    """Declared parameters and FLOPs are the measured ones, with a memory too."""
    parameters = sum(p.numel() for p in block.parameters())
    for length, memory in _tried(block, 16, 64):
        cost = _cost(block, length, memory)
        hold(cost.parameters == parameters, f"cost declares {cost.parameters} parameters, but there are {parameters}.")
        flops = count_flops(block, length, memory)
        says = f"cost declares {cost.flops} FLOPs for {_words(length, memory)}"
        hold(cost.flops == flops, f"{says}, but {flops} were counted.")


def holds_what_it_says(block: Any) -> None:
    """Declared bytes of state are those that are held after so many tokens, with a memory too."""
    place = dtype_and_device(block)["dtype"]
    for length, memory in _tried(block, 6, 20, 41):
        cost = _cost(block, length, memory)
        says = f"cost declares {cost.state_bytes} bytes of state in {place} after {_words(length, memory)}"
        if memory is None and isinstance(block, Mixer) and not block.mask.causal:
            hold(cost.state_bytes == 0, f"{says}, but one that looks ahead has no state.")
            continue
        for calls in (1, 3):
            measured = state_after(block, length, memory, calls)
            hold(cost.state_bytes == measured, f"{says} in {calls} calls, but {measured} are held.")


def takes_the_steps_it_says(block: nn.Module) -> None:
    """Declared steps grow with the row as the longest chain of operations does: not at all, as log T, or as T.

    A step of a block may be several of torch's operations, always as many. So from T to 2 T to 4 T the chain grows
    by a constant times what the steps grow by. Steps that grow as log T grow alike both times, and those that grow
    as T grow by twice as much the second time: a constant that changes by less than half between the two is one.
    """
    memory = 16 if isinstance(block, Reader) else None
    lengths, chain, is_long = _chains(block, memory)
    steps = [_cost(block, n, memory).steps for n in lengths]
    hold(steps[0] >= 0, f"steps must not be negative, but are {steps[0]}.")
    if not is_long and not _loops(chain):  # such short rows show no more than that there is no loop over tokens
        hold(not _loops(steps), f"steps must not grow as the row does, but for {lengths} tokens cost declares {steps}.")
        return
    said, seen = ([b - a for a, b in itertools.pairwise(of)] for of in (steps, chain))
    both = [(a, b) for a, b in zip(said, seen, strict=True) if a or b]
    rates = [b / a if a > 0 else 0.0 for a, b in both]
    alike = not both or 0 < max(rates) < 1.5 * min(rates)
    hold(
        alike,
        f"steps must grow as the chain of operations does, but for {lengths} tokens cost declares {steps} and the "
        f"chain has {chain} operations.",
    )


def _chains(block: nn.Module, memory: int | None) -> tuple[tuple[int, ...], list[int], bool]:
    """The chains of T, 2 T and 4 T tokens: few for a loop over tokens, else enough for every chunk and band.

    The last is whether they are enough: a block may refuse rows of so many. A chain is the longest of those side by
    side, so it is the loop's only where the rest is short beside it.
    """
    short, long = (16, 32, 64), (1024, 2048, 4096)
    chain = [trace(block, n, memory).chain for n in short]
    if _loops(chain):
        return short, chain, False
    try:
        return long, [trace(block, n, memory).chain for n in long], True
    except ValueError:
        return short, chain, False


def _loops(chain: list[int]) -> bool:
    """Whether what grows from T to 4 T does so as a loop over tokens does."""
    return chain[-1] >= 2 * max(chain[0], 1)


LAYERS, ROW = 3, 16
"""How many layers one upon another, and how many tokens, show how far a block reads."""

DISTANCES = (1, 2, 3, 4, 6, 8, 9, 12, ROW - 1)
DRAWS = 8
"""How many inputs and starts may show that a token depends on another: a weight may happen to be zero."""


def reaches_what_it_says(mixer: Mixer[Any]) -> None:
    """A token depends on those that ``reads`` names and on no other, and through as many layers as ``path`` says.

    One layer fewer, and the gradient is exactly zero for some token, and so is what a changed token changes.
    """
    closed, mixer = mixer, cast(Mixer[Any], stirred(mixer))  # a gate that starts at zero reaches nothing
    measured = _dependence(mixer, 0)
    declared = [mixer.reads(ROW) | torch.eye(ROW, dtype=torch.bool)]
    if _deep(mixer):
        declared *= len(measured)  # the whole stack reads that, and so its last layer
    else:
        for _ in measured[1:]:
            declared.append(joined(declared[0], declared[-1]))
    first = len(measured) - 1 if _deep(mixer) else 0  # of a stack, only its last layer has read what is declared
    for seed in range(1, DRAWS):
        covered = all(torch.equal(a & b, b) for a, b in zip(measured[first:], declared[first:], strict=True))
        far = len(measured) + 1  # more layers than are tried
        needed = [min(mixer.path(n, ROW).layers or far, far) for n in DISTANCES]
        if covered and [_layers_to(measured, n) or far for n in DISTANCES] == needed:
            break
        measured = [
            a | b for a, b in zip(measured, _dependence(cast(Mixer[Any], stirred(closed, seed)), seed), strict=True)
        ]
    for layers, (found, said) in enumerate(zip(measured, declared, strict=True), 1):
        last = layers == len(measured) or not _deep(mixer)
        for wrong, rule, but in ((found & ~said, "not depend", "does"), (said & ~found & last, "depend", "does not")):
            for t, s in wrong.nonzero().tolist():
                hold(
                    False,
                    f"through {layers} layers token {t} must {rule} on token {s}, as reads declares, but it {but}.",
                )
    _stays_out_of_reach(mixer, declared)
    steps = _cost(mixer, ROW, mixer.length if isinstance(mixer, Reader) else None).steps
    for distance in DISTANCES:
        path = mixer.path(distance, ROW)
        enough = _layers_to(measured, distance)
        says = f"path declares {path.layers} layers to every token {distance} away in {ROW}"
        if enough is None:
            far = path.layers is None or (path.layers > len(measured) and not _deep(mixer))
            hold(far, f"{says}, but {len(measured)} are not enough.")
        else:
            hold(path.layers == enough, f"{says}, but {enough} are enough and needed.")
        if path.layers is not None and path.operations is not None:
            most = steps if _deep(mixer) else steps * path.layers
            hold(
                path.layers <= path.operations <= max(most, path.layers),
                f"path declares {path.operations} operations on the way through {path.layers} layers, but they must be "
                f"at least one a layer and at most the {most} steps that cost declares.",
            )


def _layers_to(measured: list[Tensor], distance: int) -> int | None:
    """How many layers are enough to read every token ``distance`` away; None: all of them are not."""
    return next((k for k, found in enumerate(measured, 1) if reaches(found, distance)), None)


def _deep(mixer: Mixer[Any]) -> bool:
    """It has layers of its own to count."""
    return isinstance(mixer.decoder if isinstance(mixer, Reader) else mixer, Stack)


def _after_each_layer(mixer: Mixer[Any], x: Tensor) -> list[Tensor]:
    """What comes out after one layer, two, and so on: the stack's own, or the mixer again, each time on a residual."""
    layout, made = full(mixer, len(x), ROW), []
    if _deep(mixer):
        hooks = [
            layer.register_forward_hook(lambda *called: made.append(called[2][0]))
            for layer in mixer.modules()
            if isinstance(layer, Layer)
        ]
        mixer(x, layout.fresh())
        for hook in hooks:
            hook.remove()
        return list(made)
    for _ in range(LAYERS):
        x = nn.functional.layer_norm(x + mixer(x, layout.fresh())[0], (D,))
        made.append(x)
    return made


def _dependence(mixer: Mixer[Any], seed: int) -> list[Tensor]:
    """Through one layer, two, and so on: which token's output has a gradient at which token. (T, T) bool each"""
    x = draw(mixer, 1, ROW, D, seed=20 + seed).expand(ROW, -1, -1).clone().requires_grad_()
    found = []
    made = _after_each_layer(mixer, x)
    for y in made:
        own = y.flatten(2).diagonal(dim1=0, dim2=1).T  # (T, ...): of row t, the output at token t
        weights = draw(mixer, *own.shape, seed=30 + seed)
        (grad,) = torch.autograd.grad((own * weights).sum(), x, retain_graph=y is not made[-1])
        found.append((grad != 0).any(-1).cpu())
    return found


@torch.no_grad()
def _stays_out_of_reach(mixer: Mixer[Any], declared: list[Tensor]) -> None:
    """A token that is changed changes nothing but the tokens that read it."""
    x = draw(mixer, 1, ROW, D, seed=40)
    before = _after_each_layer(mixer, x)
    for token in (0, ROW // 2):
        other = x.clone()
        other[:, token] = 3.0 * draw(mixer, 1, D, seed=41)
        for layers, (y, z, read) in enumerate(zip(before, _after_each_layer(mixer, other), declared, strict=True), 1):
            moved = (y != z).flatten(2).any(-1)[0].cpu() & ~read[:, token]
            hold(
                not moved.any(),
                f"through {layers} layers, token {token} must change only tokens that read it, but it changes "
                f"{moved.nonzero().flatten().tolist()}.",
            )


SHORT, LONG, LINEAR = 512, 1024, 3.0
"""From a row to one of twice its length, work for every pair grows by almost 4 and a band's by 2; this is between."""


def growth(block: nn.Module) -> float:
    """How much more work a row of twice the length is: products, and numbers that are written."""
    work = [trace(block, length).written + count_flops(block, length) for length in (SHORT, LONG)]
    return work[1] / max(work[0], 1)


def lowers_as_it_says(mixer: Mixer[Any]) -> None:
    """Under a mask that hides most pairs, a mixer that declares a native lowering is spared them."""
    declared = declared_lowering(mixer)
    if declared is None or not declared.startswith("native") or mixer.mask.plain or isinstance(mixer, Reader):
        return
    more = growth(mixer)
    hold(more < LINEAR, f"lowering declares {declared!r}, but twice the tokens are {more:.1f} times the work.")


def declared_lowering(mixer: Any) -> str | None:
    """What ``lowering()`` says of a mixer that has one."""
    lowering = inspect.getattr_static(mixer, "lowering", None)
    return None if lowering is None else str(mixer.lowering())


FFN_COST_LAWS: list[Callable[[Any], None]] = [costs_what_it_says, holds_what_it_says, takes_the_steps_it_says]
MIXER_COST_LAWS: list[Callable[[Any], None]] = [*FFN_COST_LAWS, reaches_what_it_says, lowers_as_it_says]


def a_model_costs_what_it_says(model: Model) -> None:
    """Declared parameters, FLOPs and bytes of state of a whole model, with a source of another length too."""
    costs_what_it_says(model)
    for length, memory in _tried(model, 6, 20):
        cost = _cost(model, length, memory)
        try:
            measured = _state_of_a_model(model, length, memory)
        except ValueError:  # it reads both ways
            continue
        says = f"cost declares {cost.state_bytes} bytes of state after {_words(length, memory)}"
        hold(cost.state_bytes == measured, f"{says}, but {measured} are held.")


@torch.no_grad()
def _state_of_a_model(model: Model, length: int, memory: int | None) -> int:
    device = dtype_and_device(model)["device"]
    state = model.empty_state(1, length)
    tokens = (torch.arange(length, device=device) % V)[None]
    read = None
    if memory is not None:
        source = (torch.arange(memory, device=device) % V)[None]
        read = model.encode(source, Layout.full(1, memory, device))  # type: ignore[operator]
    layout = Layout.full(1, length, device)
    for start, stop in ((0, length // 2), (length // 2, length)):
        _, state = model(tokens[:, start:stop], layout.slice(start, stop).fresh(), state, read)
    return held(state)
