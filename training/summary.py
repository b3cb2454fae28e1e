"""What a model is made of, part by part, and what each part costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from blocks.contracts import (
    Attention,
    AttentionPosition,
    Embedding,
    EmbeddingPosition,
    Ffn,
    Head,
    Layer,
    Mixer,
    Model,
    Norm,
    Residual,
    Stack,
)
from registry import REGISTRY

KINDS = (Mixer, Ffn, Norm, Residual, AttentionPosition, EmbeddingPosition)


class Part(NamedTuple):
    """All parts of one kind in one place.

    flops, state_bytes: of a whole row, all of them together. state_bytes None: it can not go on from a past.
    """

    where: str
    name: str
    times: int
    parameters: int
    flops: int
    state_bytes: int | None


class Summary(NamedTuple):
    """The parts of a model, and the whole, for rows of ``length`` tokens."""

    parts: list[Part]
    parameters: int
    flops: int
    state_bytes: int | None
    length: int


def summarise(model: Model, spec: Mapping[str, Any], length: int) -> Summary:
    """Count what ``model``, built from ``spec``, is made of. Works on the meta device."""
    seen: set[int] = set()
    parts: list[Part] = []
    for key, child in model.named_children():
        if isinstance(child, Stack):
            parts += _merged(_parts_of_stack(key, child, spec.get(key) or {}, length, seen))
        else:
            name = (spec.get(key) or {}).get("name", type(child).__name__)
            flops = child.cost(length).flops if isinstance(child, Embedding | Head) else 0
            parts.append(Part(key, name, 1, _own(child, seen), flops, 0))
    rest = _own(model, seen)
    if rest:
        parts.append(Part("model", "", 1, rest, 0, 0))
    cost = model.cost(length)
    known = [part.state_bytes for part in parts]
    state = None if None in known else cost.state_bytes
    return Summary(parts, sum(part.parameters for part in parts), cost.flops, state, length)


def _parts_of_stack(
    where: str, stack: Stack[Any], spec: Mapping[str, Any], length: int, seen: set[int]
) -> Iterator[Part]:
    """Outermost blocks first; what stands inside a block (a norm in a residual rule) counts as the block's."""
    counted: list[str] = []
    for path, module in stack.named_modules():
        inside = any(path.startswith(f"{c}.") for c in counted)
        if inside or not isinstance(module, KINDS) or isinstance(module, Layer | Stack):
            continue
        counted.append(path)
        flops, state = 0, 0
        if isinstance(module, Mixer | Ffn):
            memory = [length] if _crosses(path, module) else []
            cost = module.cost(length, *memory)
            flops, state = cost.flops, cost.state_bytes if stack.mask.causal else 0
        yield Part(where, _name(path, module, spec), 1, _own(module, seen), flops, state)
    if rest := _own(stack, seen):
        yield Part(where, spec.get("name", ""), 1, rest, 0, 0)


def _crosses(path: str, module: nn.Module) -> bool:
    """It reads a memory, which is taken to be as long as the row."""
    return isinstance(module, Attention) and path.rpartition(".")[2].startswith("cross")


def _merged(parts: Iterator[Part]) -> list[Part]:
    """Parts of the same name as one row, in the order in which they first came."""
    rows: dict[str, list[Part]] = {}
    for part in parts:
        rows.setdefault(part.name, []).append(part)
    return [_sum(same) for same in rows.values()]


def _sum(parts: list[Part]) -> Part:
    states = [p.state_bytes for p in parts if p.state_bytes is not None]
    return parts[0]._replace(
        times=len(parts),
        parameters=sum(p.parameters for p in parts),
        flops=sum(p.flops for p in parts),
        state_bytes=sum(states) if len(states) == len(parts) else None,
    )


def _own(module: nn.Module, seen: set[int]) -> int:
    """Parameters that nobody before has counted: shared ones count once."""
    fresh = [p for p in module.parameters() if id(p) not in seen]
    seen.update(id(p) for p in fresh)
    return sum(p.numel() for p in fresh)


def _name(path: str, module: nn.Module, spec: Mapping[str, Any]) -> str:
    """The registered name of a module: the spec's, where a slot of that name made it."""
    made = [s for s in _specs(spec) if s[1] in REGISTRY and REGISTRY[s[1]].constructor is type(module)]
    role = path.rpartition(".")[2]
    same_role = [name for key, name in made if key == role]
    names = same_role or [name for _, name in made]
    name = names[0] if names else type(module).__name__
    return f"{name}, cross" if _crosses(path, module) else name


def _specs(spec: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(slot, name) of every block in a spec."""
    if isinstance(spec, Mapping):
        if "name" in spec:
            yield key, spec["name"]
        for k, v in spec.items():
            yield from _specs(v, k)
    elif isinstance(spec, list | tuple):
        for v in spec:
            yield from _specs(v, key)
