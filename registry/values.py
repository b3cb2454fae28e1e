"""Does a value from a config fit the annotation of a choice? If it does, what is it to the constructor?

A spec, a record and a checkpoint hold plain values: null, true and false, finite numbers, text, and lists and mappings
of these. The constructor takes what its annotation says: an enum's member, a path, a set, a dataclass.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import enum
import functools
import inspect
import json
import math
import operator
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

Block = Callable[[Any, tuple[str, ...]], Any]
"""What to do with a value where the annotation asks for a block of some families."""

UNIONS = (typing.Union, types.UnionType)
LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
PLAIN = (
    "null, true or false, a finite number, text, an enum's member or a path, "
    "or a list, a set, a mapping, a dataclass or a named tuple of these"
)
"""What a config can hold, in words."""


class MisfitError(Exception):
    """A value that an annotation does not allow. The message ends a sentence that begins with where it stands."""


class Fitted(NamedTuple):
    """A value that fits an annotation.

    plain: In JSON's types, as a spec holds it; it fits the same annotation and gives the same ``real``.
    real: What the constructor takes.
    """

    plain: Any
    real: Any


def fit(value: Any, kind: Any, block: Block) -> Any:
    """``value`` as the constructor takes it; see ``fitted``."""
    return fitted(value, kind, block).real


def fitted(value: Any, kind: Any, block: Block) -> Fitted:
    """``value`` as the annotation ``kind`` has it: a whole number for a float, a list for a tuple are made so.

    Args:
        value: What a config holds, or what a constructor takes.
        kind: An annotation.
        block: Called with a value and its families where ``kind`` asks for a block.

    Raises:
        MisfitError: It does not fit, or no config can hold it.
    """
    if hasattr(kind, "__supertype__"):  # a NewType
        return fitted(value, kind.__supertype__, block)
    if type(kind).__name__ == "TypeAliasType":
        return fitted(value, kind.__value__, block)
    origin, args = get_origin(kind), get_args(kind)
    whole = origin or kind
    if kind is Any or kind is inspect.Parameter.empty or isinstance(kind, TypeVar):
        return _anything(value)
    if origin is typing.Annotated:
        return fitted(value, args[0], block)
    if origin in UNIONS:
        return _fit_one_of(value, kind, block)
    if origin is Literal:
        return _member(value, args, kind)
    if origin is collections.abc.Callable and (families := families_of(kind)):
        if isinstance(value, str | Mapping) or callable(value):
            made = block(value, families)
            return Fitted(made, made)
        raise _misfit(value, kind)
    if whole in LISTS:
        if not isinstance(value, list | tuple):
            raise _misfit(value, kind)
        plain, real = _each(value, [args[0] if args else Any] * len(value), kind, block)
        return Fitted(plain, real)
    if whole is tuple:
        plain, real = _each(value, _places(value, args, kind), kind, block)
        return Fitted(plain, tuple(real))
    if whole in SETS:
        return _fit_set(value, kind, block)
    if whole in MAPPINGS:
        return _fit_mapping(value, kind, block)
    if (fields := _fields(whole)) is not None:
        return _fit_fields(value, whole, fields, block)
    return _fit_plain(value, kind, whole)


def _fit_plain(value: Any, kind: Any, whole: Any) -> Fitted:
    if kind is None or kind is types.NoneType:
        fits = value is None
    elif kind is bool:
        fits = isinstance(value, bool)
    elif kind is str:
        if isinstance(value, str) and isinstance(value, enum.Enum):
            value = value.value
        fits = isinstance(value, str)
    elif kind is int:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and (isinstance(value, int) or value.is_integer())  # 1e4 steps
        value = int(value) if fits else value
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if fits else value
    elif isinstance(whole, type) and issubclass(whole, enum.Enum):
        one = _enum_member(value, whole)
        return Fitted(_enum_text(one), one)
    elif isinstance(whole, type) and issubclass(whole, os.PathLike):
        if not isinstance(value, str | os.PathLike):
            raise _misfit(value, kind)
        make: Any = Path if inspect.isabstract(whole) else whole
        made = value if isinstance(value, whole) else make(value)
        return Fitted(value if isinstance(value, str) else _plain(value), made)
    elif whole is Callable or whole is collections.abc.Callable:
        fits = callable(value)
    elif isinstance(whole, type) and not getattr(whole, "_is_protocol", False):
        fits = isinstance(value, whole)
    else:  # an annotation that says more than can be judged here
        return _anything(value)
    if not fits:
        raise _misfit(value, kind)
    return Fitted(_plain(value), value)


def _anything(value: Any) -> Fitted:
    """A value of which the annotation says nothing must be plain already, or be made of tuples."""
    made = _json(value)
    return Fitted(made, made)


def _fit_one_of(value: Any, kind: Any, block: Block) -> Fitted:
    """The arm that takes the value as it is; else one that converts it; blocks, which may report, come last."""
    arms = sorted(get_args(kind), key=lambda arm: bool(families_of(arm)))
    if isinstance(value, Mapping) and "name" in value:
        arms.reverse()
    converted: list[Fitted] = []
    for arm in arms:
        try:
            made = fitted(value, arm, block)
        except MisfitError:
            continue
        if families_of(arm) or type(made.real) is type(value):
            return made
        converted.append(made)
    if not converted:
        raise _misfit(value, kind)
    return converted[0]


def _member(value: Any, allowed: Iterable[Any], kind: Any) -> Fitted:
    for one in allowed:
        text = _enum_text(one) if isinstance(one, enum.Enum) else one
        if value is one or (value == text and isinstance(value, bool) == isinstance(text, bool)):
            return Fitted(_plain(one), one)
    raise _misfit(value, kind)


def _enum_member(value: Any, kind: type[enum.Enum]) -> Any:
    text = str(value)
    for same in (
        lambda one: value is one,
        lambda one: isinstance(one.value, str) and text == one.value,
        lambda one: text == one.name,
        lambda one: text.lower() in (str(one.value).lower(), one.name.lower()),
    ):
        for one in kind:
            if same(one):
                return one
    if issubclass(kind, enum.Flag):
        if isinstance(value, kind):
            return value
        if "|" in text:
            return functools.reduce(operator.or_, (_enum_member(part.strip(), kind) for part in text.split("|")))
    raise _misfit(value, kind)


def _enum_text(member: enum.Enum) -> str:
    """What a config calls a member: its value, if that is text, else its name.

    Raises:
        MisfitError: It has no name, as a flag without a bit.
    """
    text = member.value if isinstance(member.value, str) else member.name
    if not isinstance(text, str) or _enum_member(text, type(member)) is not member:
        raise MisfitError(f"must be a member with a name, but got {member!r}.")
    return text


def _places(value: Any, args: tuple[Any, ...], kind: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _misfit(value, kind)
    if not args or args[-1] is Ellipsis:
        return [args[0] if args else Any] * len(value)
    if len(args) != len(value):
        raise _misfit(value, kind)
    return list(args)


def _each(values: Iterable[Any], kinds: list[Any], whole: Any, block: Block) -> tuple[list[Any], list[Any]]:
    values = list(values)
    try:
        made = [fitted(v, k, block) for v, k in zip(values, kinds, strict=True)]
    except MisfitError:
        raise _misfit(values, whole) from None
    return [one.plain for one in made], [one.real for one in made]


def _fit_set(value: Any, kind: Any, block: Block) -> Fitted:
    """A set is a list of different values in the order of their JSON."""
    if not isinstance(value, list | tuple | collections.abc.Set):
        raise _misfit(value, kind)
    plain, real = _each(value, [(get_args(kind) or (Any,))[0]] * len(value), kind, block)
    make = frozenset if (get_origin(kind) or kind) is frozenset else set
    try:
        return Fitted(_ordered(plain), make(real))
    except TypeError:  # what can not be hashed
        raise _misfit(value, kind) from None


def _fit_mapping(value: Any, kind: Any, block: Block) -> Fitted:
    """A config's keys are text; whole numbers are read from it where the annotation has them as keys."""
    if not isinstance(value, Mapping):
        raise _misfit(value, kind)
    of_keys, of_values = get_args(kind) or (Any, Any)
    keys = [int(k) if of_keys is int and isinstance(k, str) and k.removeprefix("-").isdigit() else k for k in value]
    names, made = _each(keys, [of_keys] * len(keys), value, block) if of_keys is not Any else (keys, keys)
    plain, real = _each(value.values(), [of_values] * len(value), kind, block)
    texts = [_key(name) for name in names]
    return Fitted(dict(zip(texts, plain, strict=True)), dict(zip(made, real, strict=True)))


def _fields(whole: Any) -> dict[str, Any] | None:
    """The fields of a dataclass, a named tuple or a typed dict, and their annotations; None for anything else."""
    if not isinstance(whole, type):
        return None
    if dataclasses.is_dataclass(whole):
        names = [f.name for f in dataclasses.fields(whole) if f.init]
    elif issubclass(whole, tuple) and hasattr(whole, "_fields"):
        names = list(whole._fields)
    elif typing.is_typeddict(whole):
        names = list(whole.__annotations__)
    else:
        return None
    hints = typing.get_type_hints(whole)
    return {name: hints.get(name, Any) for name in names}


def _fit_fields(value: Any, whole: Any, fields: Mapping[str, Any], block: Block) -> Fitted:
    """A mapping from fields to values; what is left out has its default. A named tuple may be a list as well."""
    if isinstance(value, list | tuple) and issubclass(whole, tuple) and len(value) <= len(fields):
        given = dict(zip(fields, value, strict=False))
    elif isinstance(value, Mapping):
        given = dict(value)
    elif isinstance(value, whole):
        given = {name: getattr(value, name) for name in fields}
    else:
        raise _misfit(value, whole)
    if unknown := [name for name in given if name not in fields]:
        raise MisfitError(f"must be {spoken(whole)}, but has a field {unknown[0]!r}{guess(unknown[0], fields)}")
    try:
        plain, real = _each(given.values(), [fields[name] for name in given], whole, block)
    except MisfitError:
        raise _misfit(value, whole) from None
    try:
        made = whole(**dict(zip(given, real, strict=True)))
    except (TypeError, ValueError) as refusal:  # a field that has no default is missing, or its values are refused
        raise MisfitError(f"must be {spoken(whole)}, but got {value!r}: {refusal}") from None
    written = dict(zip(given, plain, strict=True))
    if isinstance(made, dict):
        return Fitted(written, made)
    return Fitted({n: written[n] if n in written else plain_default(getattr(made, n), fields[n]) for n in fields}, made)


def _misfit(value: Any, kind: Any) -> MisfitError:
    words = [a for a in _alternatives(kind) if isinstance(a, str)]
    hint = guess(value, words) if isinstance(value, str) and words else "."
    return MisfitError(f"must be {spoken(kind)}, but got {value!r}{hint}")


# Plain values -----------------------------------------------------------------------------------------------------


def plain_default(default: Any, kind: Any) -> Any:
    """A default as a config holds it. It need not fit its own annotation: ``inf`` and ``nan`` are the texts of that.

    Raises:
        MisfitError: No config can hold it.
    """
    try:
        made = fitted(default, kind, lambda value, _: value).plain
    except MisfitError:
        made = default
    return json.loads(json.dumps(_plain(made)))  # no subclasses of text and numbers


def same(a: Any, b: Any) -> bool:
    """Whether two plain values are the same in JSON: 1 is neither true nor 1.0."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _json(value: Any) -> Any:
    """A plain value, with lists for tuples.

    Raises:
        MisfitError: It is something else.
    """
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        if not isinstance(value, enum.Enum):
            return value
    elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_json(v) for v in value]
    elif isinstance(value, Mapping):
        return {_key(k): _json(v) for k, v in value.items()}
    raise MisfitError(f"must be null, true or false, a finite number, text, a list or a mapping, but got {value!r}.")


def _plain(value: Any) -> Any:
    """What stands in a config for a value, whatever is annotated.

    Raises:
        MisfitError: Nothing can.
    """
    if isinstance(value, enum.Enum):
        return _enum_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    if isinstance(value, collections.abc.Set):
        return _ordered([_plain(v) for v in value])
    if isinstance(value, Mapping):
        return {_key(k): _plain(v) for k, v in value.items()}
    if (fields := _fields(type(value))) is not None:
        return {name: _plain(getattr(value, name)) for name in fields}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    raise MisfitError(f"must be {PLAIN}, but got {value!r}.")


def _ordered(values: Iterable[Any]) -> list[Any]:
    different = {json.dumps(v, sort_keys=True): v for v in values}
    return [different[text] for text in sorted(different)]


def _key(key: Any) -> str:
    if isinstance(key, str | int) and not isinstance(key, bool | enum.Enum):
        return str(key) if isinstance(key, int) else key
    if isinstance(key, enum.Enum):
        return _enum_text(key)
    raise MisfitError(f"must have text for its keys, but got {key!r}.")


# Words ------------------------------------------------------------------------------------------------------------


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
    if (origin or kind) in (*LISTS, *SETS):
        return f"a list, each {spoken(args[0])}" if args else "a list"
    if isinstance(kind, type) and (fields := _fields(kind)) is not None:
        return f"a mapping with {' and '.join(f'{name} ({spoken(of)})' for name, of in fields.items())}"
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)}: {', '.join(spoken(a) for a in args)}"
    if kind is tuple or origin is tuple:
        return f"a list, each {spoken(args[0])}" if args else "a list"
    if kind in MAPPINGS or origin in MAPPINGS:
        return f"a mapping to {spoken(args[1])}" if args else "a mapping"
    if isinstance(origin or kind, type) and issubclass(origin or kind, os.PathLike):
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
    spelt = {name.lower(): name for name in map(str, known)}
    close = [spelt[name] for name in difflib.get_close_matches(str(word).lower(), list(spelt), n=1, cutoff=0.6)]
    return f". Did you mean {close[0]!r}?" if close else "."
