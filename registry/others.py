"""Other values that a choice can take, drawn from its annotation.

What can be chosen is known without a list: the alternatives of a ``Literal``, true and false, numbers a little and much
larger or smaller, null, the other blocks of a family. A value that is drawn here may still be refused by its block.
"""

from __future__ import annotations

import enum
import os
import random
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from registry.core import MISSING, REGISTRY, Choice, Entry
from registry.values import LISTS, UNIONS, families_of

INTS = (1, 2, 3, 4, 8, 16, 0)
"""Whole numbers to start from where a choice has none."""

FLOATS = (0.5, 0.1, 1.0, 2.0, 0.0)
"""The same for numbers."""

Names = tuple[str, ...]


def others(choice: Choice, value: Any = MISSING, within: Names = ()) -> list[Any]:
    """Values that the annotation of ``choice`` allows and that differ from ``value``, the likeliest to matter first.

    Args:
        choice: What is chosen.
        value: What it is now; its default, if that is not said.
        within: Blocks that the value is a part of, which it must not hold again.
    """
    now = choice.default if value == MISSING else value
    found = [v for v in _values(choice.type, None if now == MISSING else now, within) if not _same(v, now)]
    return [v for i, v in enumerate(found) if not any(_same(v, before) for before in found[:i])]


def small(entry: Entry, within: Names = ()) -> dict[str, Any]:
    """A spec whose sizes are small enough to matter in a row of a dozen tokens; what has no default is drawn."""
    sizes = {
        key: min(choice.default, 4)
        for key, choice in entry.choices.items()
        if choice.type is int and isinstance(choice.default, int) and not isinstance(choice.default, bool)
    }
    return {"name": entry.name, **sizes, **required(entry, within)}


def required(entry: Entry, within: Names = ()) -> dict[str, Any]:
    """For each choice that has no default the first value that can be drawn, if there is one."""
    inside = (*within, entry.name)
    missing = [choice for choice in entry.choices.values() if choice.default == MISSING]
    drawn = {choice.name: others(choice, within=inside) for choice in missing}
    return {key: values[0] for key, values in drawn.items() if values}


def some(entry: Entry, dice: random.Random, share: float = 0.5, keep: Iterable[str] = ()) -> dict[str, Any]:
    """Values for some of a block's choices, each made with the chance ``share``; those in ``keep`` are not made."""
    made = {}
    for key, choice in entry.choices.items():
        if key not in keep and not choice.same_numbers and dice.random() < share and (values := others(choice)):
            made[key] = dice.choice(values)
    return made


def is_text(kind: Any) -> bool:
    """Whether an annotation takes any text: a path, a name of something outside. What may stand there is not known."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in UNIONS:
        return all(is_text(arm) for arm in args if arm is not types.NoneType)
    if origin in (*LISTS, tuple):
        return bool(args) and is_text(args[0])
    return kind is str or (isinstance(kind, type) and issubclass(kind, os.PathLike))


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _values(kind: Any, value: Any, within: Names) -> list[Any]:
    origin, args = get_origin(kind), get_args(kind)
    if families := families_of(kind):
        return _blocks(kind, families, value, within)
    if origin in UNIONS:  # null comes last: where it is the default, a value is likelier to matter
        arms = sorted(args, key=lambda arm: arm is types.NoneType)
        return [v for arm in arms for v in _values(arm, value, within)]
    if origin is Literal:
        return list(args)
    if kind is types.NoneType or kind is None:
        return [None]
    if kind is bool:
        return [not value]
    if kind is int:
        return _whole(value) if isinstance(value, int) else list(INTS)
    if kind is float:
        return _real(float(value)) if isinstance(value, int | float) else list(FLOATS)
    if kind is str or (isinstance(kind, type) and issubclass(kind, os.PathLike)):
        return [f"{value}x" if isinstance(value, str | os.PathLike) else "x"]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [one.value for one in kind]
    if kind in LISTS or origin in (*LISTS, tuple):
        return _lists(_values(args[0], None, within)[:1] if args else [], value)
    return []


def _whole(value: int) -> list[int]:
    return [value * 2, value + 1, *([value // 2] if value > 1 else []), *([value - 1] if value > 0 else []), *INTS]


def _real(value: float) -> list[float]:
    return [*([value * 2, value / 2, value + 0.1, value * 1.01] if value else []), *FLOATS]


def _lists(first: list[Any], value: Any) -> list[Any]:
    """Shorter, longer, turned round, and with another first element."""
    held = list(value) if isinstance(value, list | tuple) else []
    found = [held[:-1]] if len(held) > 1 else []
    if held:
        found += [[*held, held[-1]], held[::-1]]
    return [*found, *([[*first, *held[1:]]] if first else [])]


def _blocks(kind: Any, families: Names, value: Any, within: Names) -> list[Any]:
    """Other blocks of some families; parts that the old one holds go over to a new one that has a place for them."""
    arms = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
    empty = [None] if types.NoneType in arms else []
    names = [name for name in REGISTRY.names(*families) if name not in within]
    if any(get_origin(arm) in LISTS for arm in arms) and not isinstance(value, str | Mapping):
        singles = ([small(REGISTRY[name], within)] for name in names)
        return [*_lists([], value), *singles, *empty]
    parts = value if isinstance(value, Mapping) else {}
    now = parts.get("name", value)
    found = []
    for name in names:
        if now not in (name, REGISTRY[name].short):
            kept = {key: parts[key] for key in REGISTRY[name].choices if key in parts}
            found.append({**small(REGISTRY[name], within), **kept})
    return [*found, *empty]
