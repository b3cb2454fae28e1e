"""Does a value from a config fit the annotation of a choice? If it does, what is it to the constructor?"""

from __future__ import annotations

import collections.abc
import difflib
import enum
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

Block = Callable[[Any, tuple[str, ...]], Any]
"""What to do with a value where the annotation asks for a block of some families."""

UNIONS = (typing.Union, types.UnionType)
LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping)


class MisfitError(Exception):
    """A value that an annotation does not allow. The message ends a sentence that begins with where it stands."""

    def __init__(self, value: Any, kind: Any) -> None:
        words = [a for a in _alternatives(kind) if isinstance(a, str)]
        hint = guess(value, words) if isinstance(value, str) and words else "."
        super().__init__(f"must be {spoken(kind)}, but got {value!r}{hint}")


def fit(value: Any, kind: Any, block: Block) -> Any:
    """``value`` as the annotation ``kind`` has it: a whole number for a float, a list for a tuple are made so.

    Args:
        value: What a config holds.
        kind: An annotation.
        block: Called with a value and its families where ``kind`` asks for a block.

    Raises:
        MisfitError: It does not fit.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or kind is inspect.Parameter.empty or isinstance(kind, TypeVar):
        return value
    if origin is typing.Annotated:
        return fit(value, args[0], block)
    if origin in UNIONS:
        return _fit_one_of(value, kind, block)
    if origin is Literal:
        return _member(value, args, kind)
    if origin is collections.abc.Callable and (families := families_of(kind)):
        if isinstance(value, str | Mapping) or callable(value):
            return block(value, families)
        raise MisfitError(value, kind)
    if kind in LISTS or origin in LISTS:
        if not isinstance(value, list | tuple):
            raise MisfitError(value, kind)
        return _each(value, [args[0] if args else Any] * len(value), kind, block)
    if kind is tuple or origin is tuple:
        return tuple(_each(value, _places(value, args, kind), kind, block))
    if kind in MAPPINGS or origin in MAPPINGS:
        if not isinstance(value, Mapping):
            raise MisfitError(value, kind)
        made = _each(value.values(), [args[1] if args else Any] * len(value), kind, block)
        return dict(zip(value, made, strict=True))
    return _fit_plain(value, kind)


def _fit_plain(value: Any, kind: Any) -> Any:
    if kind is None or kind is types.NoneType:
        fits = value is None
    elif kind is bool or kind is str:
        fits = isinstance(value, kind)
    elif kind is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, float) and value.is_integer():  # 1e4 steps
            return int(value)
    elif kind is float:
        fits = isinstance(value, float) and math.isfinite(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum_member(value, kind)
    elif isinstance(kind, type) and issubclass(kind, os.PathLike):
        fits = isinstance(value, str | os.PathLike)
    elif kind is Callable or get_origin(kind) is collections.abc.Callable:
        fits = callable(value)
    elif isinstance(kind, type):
        fits = isinstance(value, kind)
    else:  # an annotation that says more than can be judged here
        fits = True
    if not fits:
        raise MisfitError(value, kind)
    return value


def _fit_one_of(value: Any, kind: Any, block: Block) -> Any:
    """The arm that takes the value as it is; else one that converts it; blocks, which may report, come last."""
    arms = sorted(get_args(kind), key=lambda arm: bool(families_of(arm)))
    if isinstance(value, Mapping) and "name" in value:
        arms.reverse()
    converted: list[Any] = []
    for arm in arms:
        try:
            made = fit(value, arm, block)
        except MisfitError:
            continue
        if families_of(arm) or type(made) is type(value):
            return made
        converted.append(made)
    if not converted:
        raise MisfitError(value, kind)
    return converted[0]


def _member(value: Any, allowed: Iterable[Any], kind: Any) -> Any:
    for one in allowed:
        if one == value and isinstance(value, bool) == isinstance(one, bool):
            return one
    raise MisfitError(value, kind)


def _enum_member(value: Any, kind: type[enum.Enum]) -> enum.Enum:
    for one in kind:
        if value is one or str(value).lower() in (str(one.value).lower(), one.name.lower()):
            return one
    raise MisfitError(value, kind)


def _places(value: Any, args: tuple[Any, ...], kind: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise MisfitError(value, kind)
    if not args or args[-1] is Ellipsis:
        return [args[0] if args else Any] * len(value)
    if len(args) != len(value):
        raise MisfitError(value, kind)
    return list(args)


def _each(values: Iterable[Any], kinds: list[Any], whole: Any, block: Block) -> list[Any]:
    values = list(values)
    try:
        return [fit(v, k, block) for v, k in zip(values, kinds, strict=True)]
    except MisfitError:
        raise MisfitError(values, whole) from None


def families_of(kind: Any) -> tuple[str, ...]:
    """The families of the blocks that an annotation asks for; empty if it asks for none."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is collections.abc.Callable:
        return _families_of_result(args[-1])
    if origin in (list, tuple, typing.Annotated, *LISTS, *UNIONS):
        return tuple(dict.fromkeys(f for a in args for f in families_of(a)))
    return ()


def _families_of_result(result: Any) -> tuple[str, ...]:
    if get_origin(result) in UNIONS:
        return tuple(dict.fromkeys(f for a in get_args(result) for f in _families_of_result(a)))
    return tuple(getattr(get_origin(result) or result, "families", ()))


def spoken(kind: Any) -> str:
    """An annotation in words: what a value must be."""
    origin, args = get_origin(kind), get_args(kind)
    words: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    words |= {None: "null", types.NoneType: "null", Any: "anything"}
    if origin in UNIONS:
        parts = sorted(args, key=lambda a: a is types.NoneType)
        return " or ".join(dict.fromkeys(spoken(a) for a in parts))
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        shown = [repr(a) for a in _alternatives(kind)]
        return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"
    if origin is typing.Annotated:
        return spoken(args[0])
    if origin is collections.abc.Callable:
        families = families_of(kind)
        return f"the name of {' or '.join(_a(f) for f in families)}" if families else "callable"
    if kind in LISTS or origin in LISTS:
        return f"a list, each {spoken(args[0])}" if args else "a list"
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)}: {', '.join(spoken(a) for a in args)}"
    if kind is tuple or origin is tuple:
        return f"a list, each {spoken(args[0])}" if args else "a list"
    if kind in MAPPINGS or origin in MAPPINGS:
        return f"a mapping to {spoken(args[1])}" if args else "a mapping"
    if isinstance(kind, type) and issubclass(kind, os.PathLike):
        return "a path"
    try:
        return words[kind]
    except (KeyError, TypeError):
        return _a(getattr(kind, "__name__", str(kind)))


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _alternatives(kind: Any) -> list[Any]:
    """The values that an annotation lists one by one."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) in UNIONS:
        return [v for a in get_args(kind) for v in _alternatives(a)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [one.value for one in kind]
    return []


def guess(word: Any, known: Iterable[str]) -> str:
    """How a sentence about an unknown word ends: with the nearest known one, if any is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f". Did you mean {close[0]!r}?" if close else "."
