"""Holds the type checks to what an annotation says, in words a person understands."""

import datetime
import enum
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import pytest

from registry.values import MisfitError, fit, fitted, guess, plain_default, same, spoken


class Side(enum.Enum):
    LEFT = "left"
    RIGHT = "right"


class Swapped(enum.Enum):
    b = "a"
    a = "b"


class Flags(enum.Flag):
    A = enum.auto()
    B = enum.auto()


@dataclass(frozen=True)
class Band:
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError(f"low must not be above high, but got {self.low} and {self.high}.")


class Point(NamedTuple):
    x: int
    y: Side = Side.LEFT


class Corner(TypedDict):
    x: int


Count = NewType("Count", int)


class Norm:
    families = ("norm",)


Made = Callable[..., Norm]
BAND = "a mapping with low (a number) and high (a number)"


def block(value, families):
    return ("made", value, families)


@pytest.mark.parametrize(
    ("value", "kind", "made"),
    [
        (3, int, 3),
        (1e4, int, 10000),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (True, bool, True),
        ("a", str, "a"),
        (None, int | None, None),
        (3, float | int, 3),
        (2.5, int | float, 2.5),
        ("auto", Literal["auto"] | int, "auto"),
        (8, Literal["auto"] | int, 8),
        (2, Literal[1, 2], 2),
        ("LEFT", Side, Side.LEFT),
        ("right", Side, Side.RIGHT),
        ([1, 2], list[int], [1, 2]),
        ((1, 2), list[float], [1.0, 2.0]),
        ([1, 2], tuple[int, int], (1, 2)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ([1], Sequence[int], [1]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": 1}, Mapping[str, Any], {"a": 1}),
        ("x/y", Path, Path("x/y")),
        ("x/y", os.PathLike[str] | None, Path("x/y")),
        ("x/y", str | Path, "x/y"),
        ((1, 2), Any, [1, 2]),
        (3, Annotated[int, "even"], 3),
        (["a", "b"], str | list[str], ["a", "b"]),
        ("rms", Made, ("made", "rms", ("norm",))),
        ({"name": "rms"}, Made | None, ("made", {"name": "rms"}, ("norm",))),
        (None, Made | None, None),
        (["rms"], list[Made], [("made", "rms", ("norm",))]),
        (["b", "a", "a"], frozenset[str], frozenset("ab")),
        ([2, 1], set[int] | None, {1, 2}),
        ({"3": 1}, dict[int, float], {3: 1.0}),
        ({"high": 2}, Band, Band(high=2.0)),
        (None, Band | None, None),
        ({"x": 1, "y": "left"}, Point, Point(1, Side.LEFT)),
        ([1, "right"], Point, Point(1, Side.RIGHT)),
        ({"x": 1}, Corner, {"x": 1}),
        ("a|b", Flags, Flags.A | Flags.B),
        (3, Count, 3),
        ([1, [2, 3]], tuple[int, tuple[int, int]], (1, (2, 3))),
        ("left", Literal[Side.LEFT] | int, Side.LEFT),
        ("b", Swapped, Swapped.a),
    ],
)
def test_what_fits_is_made_what_the_constructor_wants(value, kind, made):
    assert (found := fit(value, kind, block)) == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("value", "kind", "plain"),
    [
        (Side.LEFT, Side, "left"),
        ("LEFT", Side, "left"),
        (Swapped.a, Swapped, "b"),
        (Swapped.b, Swapped, "a"),
        (Flags.A | Flags.B, Flags, "A|B"),
        (Path("x/y"), Path, "x/y"),
        (frozenset({"b", "a"}), frozenset[str], ["a", "b"]),
        ((1, (2, 3)), tuple[int, tuple[int, int]], [1, [2, 3]]),
        (Band(0.5), Band, {"low": 0.5, "high": 1.0}),
        ({"low": 0.5}, Band | None, {"low": 0.5, "high": 1.0}),
        (Point(1), Point, {"x": 1, "y": "left"}),
        ({3: 1}, dict[int, float], {"3": 1.0}),
        ({Side.LEFT: [Path("x")]}, dict[Side, list[Path]], {"left": ["x"]}),
        ({"x": [Side.LEFT, None]}, Mapping[str, Sequence[Side | None]], {"x": ["left", None]}),
    ],
)
def test_a_spec_holds_json_from_which_the_constructor_s_value_is_made_again(value, kind, plain):
    first = fitted(value, kind, block)
    assert same(first.plain, plain)
    again = fitted(json.loads(json.dumps(first.plain)), kind, block)
    assert same(again.plain, plain)
    assert (type(again.real), again.real) == (type(first.real), first.real)


@pytest.mark.parametrize(
    ("default", "kind", "plain"),
    [
        (math.inf, float, "inf"),
        ((0.0, -math.inf), tuple[float, float], [0.0, "-inf"]),
        (None, int, None),
        (Side.LEFT, Any, "left"),
        (((1,), {2}), tuple, [[1], [2]]),
        (True, int, True),
    ],
)
def test_a_default_need_not_fit_its_annotation(default, kind, plain):
    assert same(plain_default(default, kind), plain)


@pytest.mark.parametrize(
    "default", [b"salt", 1j, len, object(), datetime.date(2026, 1, 2), Decimal(1), [b"a"], {(1, 2): 3}, range(3)]
)
def test_a_default_that_no_config_can_hold_is_refused(default):
    with pytest.raises(MisfitError, match=r"^must "):
        plain_default(default, type(default))


def test_plain_values_are_compared_with_their_types():
    assert same({"a": [1, "x"], "b": None}, {"b": None, "a": [1, "x"]})
    assert not same(1, True)
    assert not same(1, 1.0)


@pytest.mark.parametrize(
    ("value", "kind", "sentence"),
    [
        ("eight", int, "must be a whole number, but got 'eight'."),
        (True, int, "must be a whole number, but got True."),
        (2.5, int, "must be a whole number, but got 2.5."),
        ("1e-3", float, "must be a number, but got '1e-3'."),
        (False, float, "must be a number, but got False."),
        (1, bool, "must be true or false, but got 1."),
        (7, str, "must be text, but got 7."),
        (None, int, "must be a whole number, but got None."),
        ("x", int | None, "must be a whole number or null, but got 'x'."),
        ("gelo", Literal["gelu", "relu"], "must be one of 'gelu', 'relu', but got 'gelo'. Did you mean 'gelu'?"),
        (True, Literal[1, 2], "must be one of 1, 2, but got True."),
        ("autp", Literal["auto"] | int, "must be 'auto' or a whole number, but got 'autp'. Did you mean 'auto'?"),
        ("up", Side, "must be one of 'left', 'right', but got 'up'."),
        ([1, "a"], list[int], "must be a list, each a whole number, but got [1, 'a']."),
        (3, list[int], "must be a list, each a whole number, but got 3."),
        ([1], tuple[int, int], "must be a list of 2: a whole number, a whole number, but got [1]."),
        ([1], dict[str, int], "must be a mapping to a whole number, but got [1]."),
        (3, Made, "must be the name of a norm, but got 3."),
        (3, Made | None, "must be the name of a norm or null, but got 3."),
        (3, Path, "must be a path, but got 3."),
        (3, Callable[..., int], "must be callable, but got 3."),
        (3, set[str], "must be a list, each text, but got 3."),
        ([[]], set[Any], "must be a list, each anything, but got [[]]."),
        (object, Any, f"must be null, true or false, a finite number, text, a list or a mapping, but got {object}."),
        (math.inf, Any, "must be null, true or false, a finite number, text, a list or a mapping, but got inf."),
        ({"lo": 1}, Band, f"must be {BAND}, but has a field 'lo'. Did you mean 'low'?"),
        ({"low": "x"}, Band, f"must be {BAND}, but got {{'low': 'x'}}."),
        (
            {"low": 2},
            Band,
            f"must be {BAND}, but got {{'low': 2}}: low must not be above high, but got 2.0 and 1.0.",
        ),
        (3, Point, "must be a mapping with x (a whole number) and y (one of 'left', 'right'), but got 3."),
    ],
)
def test_what_does_not_fit_is_refused_in_words(value, kind, sentence):
    with pytest.raises(MisfitError) as refusal:
        fit(value, kind, block)
    assert str(refusal.value) == sentence


def test_an_annotation_can_be_said():
    assert spoken(Literal["a", "b"] | None) == "one of 'a', 'b' or null"
    assert spoken(list[Made]) == "a list, each the name of a norm"
    assert spoken(Any) == "anything"


def test_a_guess_is_near_whatever_its_case():
    assert guess("GQA", ["mha", "gqa"]) == ". Did you mean 'gqa'?"
    assert guess("lr", ["layer", "mask"]) == "."
