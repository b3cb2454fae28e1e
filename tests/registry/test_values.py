"""Holds the type checks to what an annotation says, in words a person understands."""

import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from registry.values import MisfitError, fit, spoken


class Side(enum.Enum):
    LEFT = "left"
    RIGHT = "right"


class Norm:
    families = ("norm",)


Made = Callable[..., Norm]


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
        ("x/y", Path, "x/y"),
        (object, Any, object),
        (3, Annotated[int, "even"], 3),
        (["a", "b"], str | list[str], ["a", "b"]),
        ("rms", Made, ("made", "rms", ("norm",))),
        ({"name": "rms"}, Made | None, ("made", {"name": "rms"}, ("norm",))),
        (None, Made | None, None),
        (["rms"], list[Made], [("made", "rms", ("norm",))]),
        (len, Callable[..., int], len),
    ],
)
def test_what_fits_is_made_what_the_constructor_wants(value, kind, made):
    fitted = fit(value, kind, block)
    assert fitted == made
    assert type(fitted) is type(made)


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
