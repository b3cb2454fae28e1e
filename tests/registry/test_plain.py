"""Holds specs to JSON: spec -> JSON -> spec is the identity, and builds the same, for every block and odd plugins."""

from __future__ import annotations

import datetime
import enum
import functools
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from registry import REGISTRY, ConfigError, Factory, Registry
from registry.plugins import load_builtin
from registry.values import same

load_builtin()


class Part:
    """A block of another family.

    Args:
        size: How large.
    """

    families = ("part",)

    def __init__(self, *, size: int = 1) -> None:
        self.size = size

    def __eq__(self, other):
        return isinstance(other, Part) and self.size == other.size


class Side(enum.Enum):
    LEFT = "left"
    RIGHT = 2


class Rank(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Style(enum.StrEnum):
    BOLD = "bold"


class Place(NamedTuple):
    x: int
    side: Side = Side.LEFT


@dataclass(frozen=True)
class Band:
    low: float = 0.0
    sides: tuple[Side, ...] = (Side.LEFT,)
    path: Path = field(default=Path("a/b"))


ODD: dict[str, tuple[Any, Any, Any]] = {
    "enum": (Side, Side.RIGHT, "left"),
    "int_enum": (Rank, Rank.HIGH, "low"),
    "text_enum_under_text": (str, Style.BOLD, "other"),
    "enum_under_anything": (Any, Side.LEFT, 3),
    "path": (Path, Path("a") / "b", "c/d"),
    "path_or_text": (Path | str | None, Path("a"), "b"),
    "frozenset": (frozenset[str], frozenset({"b", "a"}), ["c"]),
    "set": (set[Side], {Side.LEFT, Side.RIGHT}, ["left"]),
    "dataclass": (Band, Band(0.25), {"low": 0.5}),
    "dataclass_or_none": (Band | None, None, {"low": 0.5}),
    "named_tuple": (Place, Place(3, Side.RIGHT), {"x": 4}),
    "nested_tuple": (tuple[int, tuple[Side, ...]], (1, (Side.LEFT,)), [2, ["left", "RIGHT"]]),
    "bare_tuple": (tuple, ((1, 2), (3, 4)), [5]),
    "infinity": (float, math.inf, 3),
    "minus_infinity_inside": (tuple[float, float], (-math.inf, 1.0), [0, 1]),
    "literal": (Literal["auto", 1, None, True], True, 1),
    "literal_of_members": (Literal[Side.LEFT] | int, Side.LEFT, 7),
    "whole_keys": (dict[int, Side], {1: Side.LEFT}, {"2": "left"}),
    "sloppy_none": (int, None, 4),
    "sloppy_int": (float, 1, 2),
    "list_of_mappings": (list[dict[str, Any]], [{"a": (1, None)}], [{"b": 2}]),
    "part": (Factory[Part], "plain", {"name": "plain", "size": 3}),
    "part_as_spec": (Factory[Part] | None, {"name": "plain", "size": 2}, None),
    "parts": (tuple[Factory[Part], ...], ("plain", {"name": "part/plain", "size": 5}), ["plain"]),
}
"""An annotation, a default, and what a config may say instead."""

UNSAYABLE: dict[str, tuple[Any, Any]] = {
    "bytes": (bytes, b"salt"),
    "complex": (complex, 1j),
    "datetime": (datetime.datetime, datetime.datetime(2026, 1, 2)),
    "decimal": (Decimal, Decimal("0.1")),
    "callable": (Callable[[int], int], len),
    "object": (Any, object()),
    "class_for_a_part": (Factory[Part], Part),
    "dataclass_with_bytes": (Any, [{"a": b"x"}]),
    "partial": (Any, functools.partial(len)),
}


def constructor(kind: Any, default: Any) -> type:
    class Odd:
        """A block with one odd choice."""

        families = ("odd",)

        def __init__(self, *, choice=default):
            self.choice = choice() if isinstance(choice, functools.partial) else choice
            if isinstance(choice, tuple) and any(isinstance(c, functools.partial) for c in choice):
                self.choice = tuple(c() for c in choice)

    Odd.__init__.__annotations__["choice"] = kind
    return Odd


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register("part/plain")(Part)
    for name, (kind, default, _) in ODD.items():
        made.register(f"odd/{name}")(constructor(kind, default))
    return made


def through_json(spec: Any) -> Any:
    return json.loads(json.dumps(spec, allow_nan=False))


def alike(a: Any, b: Any) -> bool:
    """The same types and values, in what is bound as well."""
    if isinstance(a, functools.partial):
        return type(a) is type(b) and a.func is b.func and alike(a.keywords, b.keywords)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    return bool(a == b)


@pytest.mark.parametrize("name", REGISTRY.names())
def test_a_spec_of_ours_survives_json_and_builds_the_same(name):
    full = REGISTRY.complete(spec_of(name))
    assert same(through_json(full), full)
    assert same(REGISTRY.complete(through_json(full)), full)
    assert alike(REGISTRY.factory(full), REGISTRY.factory(through_json(full)))


def spec_of(name: str) -> dict[str, Any]:
    """A block with something for every choice that has no default."""
    spec: dict[str, Any] = {"name": name}
    for key, choice in REGISTRY[name].choices.items():
        if choice.default != "???":
            continue
        if choice.families:
            part = spec_of(next(n for n in REGISTRY.names(*choice.families) if n != name))
            spec[key] = [part] if "list" in str(choice.type) else part
        else:
            spec[key] = "x" if "str" in str(choice.type) else 2
    return spec


@pytest.mark.parametrize("name", ODD)
def test_an_odd_default_survives_json_and_is_what_the_constructor_gets(registry, name):
    full = registry.complete(f"odd/{name}")
    assert same(through_json(full), full)
    assert same(registry.complete(through_json(full)), full)
    built = [registry.factory(spec)().choice for spec in (f"odd/{name}", full, through_json(full))]
    assert alike(built[0], built[1])
    assert alike(built[0], built[2])
    if "part" not in name:
        assert alike(built[0], ODD[name][1])


@pytest.mark.parametrize("name", ODD)
def test_an_odd_choice_survives_json_as_well(registry, name):
    full = registry.complete({"name": f"odd/{name}", "choice": ODD[name][2]})
    assert not same(full, registry.complete(f"odd/{name}"))
    assert same(registry.complete(through_json(full)), full)
    built = [registry.factory(spec)().choice for spec in ({**full}, through_json(full))]
    assert alike(*built)


def test_a_constructor_gets_what_its_annotation_says(registry):
    def got(name: str, choice: Any) -> Any:
        return registry.factory({"name": f"odd/{name}", "choice": choice})().choice

    assert got("enum", "LEFT") is Side.LEFT
    assert got("path", "c/d") == Path("c/d")
    assert got("dataclass", {"sides": ["right"], "path": "c"}) == Band(0.25, (Side.RIGHT,), Path("c"))
    assert got("nested_tuple", [2, ["left", "RIGHT"]]) == (2, (Side.LEFT, Side.RIGHT))
    assert got("whole_keys", {"2": "left"}) == {2: Side.LEFT}
    assert got("parts", ["plain"]) == (Part(),)
    assert got("infinity", math.inf) == math.inf


def test_a_number_that_is_not_finite_is_taken_only_where_it_is_the_default(registry):
    for value in (math.nan, -math.inf, "nan"):
        with pytest.raises(ConfigError) as refusal:
            registry.complete({"name": "odd/infinity", "choice": value})
        assert str(refusal.value) == f"choice: must be a number, but got {value!r}."


@pytest.mark.parametrize("name", UNSAYABLE)
def test_a_default_that_no_config_can_hold_is_refused_with_its_place(registry, name):
    kind, default = UNSAYABLE[name]
    registry.register(f"odd/{name}")(constructor(kind, default))
    with pytest.raises(ConfigError) as refusal:
        registry.complete(f"odd/{name}", path="odd")
    line = inspect.getsourcelines(constructor)[1] + 1
    assert str(refusal.value).startswith(f"odd.choice: the default of 'choice' at {__file__}:{line} must be ")
    assert "but got " in str(refusal.value)
