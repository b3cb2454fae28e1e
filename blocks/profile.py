"""What a block declares that it costs and what it is measured to cost, for rows of some lengths.

A block is named as on the command line; ``mha+window`` is a mixer under a mask. Without one it is causal, or full
where it must be.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blocks.contracts import Attention, Cost, Ffn, Layout, Mask, Mixer, Path
from blocks.laws.cost import count_flops, state_after, trace
from blocks.laws.trying import D
from registry import REGISTRY, factory
from registry.core import BY_ITS_FILE
from registry.errors import ConfigError
from registry.named import refuse_family

FAMILIES = (*Mixer.families, *Ffn.families)


class Line(NamedTuple):
    """One block in one row of ``length`` tokens, of width ``D``.

    declared: what ``cost`` returns.
    path: to every token from the one half a row before it; None for a block that mixes no tokens.
    flops: counted in a forward.
    chain: operations of torch's that follow one another in a forward.
    state_bytes: held after the row; None where it can not go on from a past.
    seconds: least of some forwards and backwards.
    peak_bytes: the most that tensors made on the way take at one time.
    """

    name: str
    length: int
    declared: Cost
    path: Path | None
    flops: int
    chain: int
    state_bytes: int | None
    seconds: float
    peak_bytes: int


def lines(words: Iterable[str], lengths: Iterable[int], repeats: int = 3) -> Iterator[Line]:
    """Each block at each length."""
    lengths = sorted(lengths)
    for word in words:
        block = build(word, D, lengths[-1])
        for length in lengths:
            yield measure(word, block, length, repeats)


def build(
    word: str,
    d_model: int,
    length: int,
    device: torch.device | str = "cpu",
    families: tuple[str, ...] = FAMILIES,
    command: str = "profile",
) -> Any:
    """A block of ``families``, for rows of at most ``length`` tokens; ``command`` is named in messages.

    Raises:
        ConfigError: No block or mask has such a name, they do not go together, or the name stands for nothing.
    """
    short, _, policy = word.partition("+")
    refuse_family(short, command, families)
    entry = REGISTRY.find(short, families, command, BY_ITS_FILE)
    longest = {"length": length} if "length" in entry.choices else {}  # where a row has a greatest length
    make = factory({"name": entry.name, **longest})
    kind: Any = make.func  # type: ignore[attr-defined]
    if entry.family in Ffn.families:
        if policy:
            raise ConfigError(
                f"{command}: {word} must be a feed-forward without a mask, but got +{policy}. Leave it out."
            )
        block = make(d_model)
        if block is None:
            raise ConfigError(f"{command}: {word} must be a block that costs something, but it stands for none.")
        return block.to(device)
    known = REGISTRY.find(policy, ("mask",), command, BY_ITS_FILE) if policy else None
    refusals = []
    for causal in (True, False):
        try:
            mask = Mask(causal) if known is None else factory(known.name)(causal)
            if not issubclass(kind, Attention):
                return make(d_model, mask).to(device)
            prefers = kind.prefers["position"]
            position = None if prefers == "none" else factory(prefers, ("position",))
            return make(d_model, mask, position).to(device)
        except ValueError as refusal:
            refusals.append(str(refusal))
    raise ConfigError(f"{command}: {word} can not be built: {' '.join(dict.fromkeys(refusals))}")


def measure(word: str, block: Any, length: int, repeats: int) -> Line:
    """One line of the table."""
    run = step(block, length)
    run()
    with Peak() as peak:
        run()
    seconds = min(_timed(run) for _ in range(repeats))
    mixes = isinstance(block, Mixer)
    try:
        held = None if mixes and not block.mask.causal else state_after(block, length)
    except ValueError:
        held = None
    return Line(
        word,
        length,
        block.cost(length),
        block.path(length // 2, length) if mixes and length > 1 else None,
        count_flops(block, length),
        trace(block, length).chain,
        held,
        seconds,
        peak.bytes,
    )


def step(block: Any, length: int) -> Callable[[], None]:
    """One forward and backward of a row."""
    like = next(block.parameters(), torch.empty(0))
    x = torch.randn(1, length, block.d_model, device=like.device, requires_grad=True)
    layout = Layout.full(1, length, like.device)

    def run() -> None:
        block(x, layout.fresh())[0].sum().backward()
        if like.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _timed(run: Callable[[], None]) -> float:
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


class Peak(TorchDispatchMode):
    """The most bytes that tensors made under this mode take at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._now = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given | self._alive.keys():
                self._came(made.untyped_storage())
        return out

    def _came(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._now += size
        self.bytes = max(self.bytes, self._now)

        def gone(_: Any) -> None:
            self._now -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, gone)
