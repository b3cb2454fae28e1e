"""A sum does what its parts do, all of it, and refuses parts that would undo each other."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.position.alibi import Alibi
from blocks.position.dependency import Dependency
from blocks.position.fire import Fire
from blocks.position.none import NoPosition
from blocks.position.rope import Rope
from blocks.position.shaw import Shaw
from blocks.position.sinusoidal import Sinusoidal
from blocks.position.sum import Sum
from blocks.position.t5 import T5
from blocks.position.xpos import XPos
from registry import factory


def test_biases_add_and_rotations_follow_one_another():
    total, layout = Sum(2, 8, parts=[Rope, Alibi, T5, Shaw]), Layout.full(2, 5)
    rope, alibi, t5, shaw = total.parts
    x, p = torch.randn(2, 5, 2, 8), torch.rand(2, 2, 5, 5)
    assert_close(total.rotate(x, layout, "query"), rope.rotate(x, layout, "query"))
    assert_close(total.bias(x, x, layout, layout), sum(part.bias(x, x, layout, layout) for part in (alibi, t5, shaw)))
    assert_close(total.value_bias(p, layout, layout), shaw.value_bias(p, layout, layout))


def test_acts_as_the_union_of_its_parts():
    assert Sum(2, 8, parts=[NoPosition]).acts == frozenset()
    assert Sum(2, 8, parts=[Rope]).acts == {"rotate"}
    assert Sum(2, 8, parts=[Rope, Shaw]).acts == {"rotate", "bias", "value_bias"}
    x, layout = torch.randn(1, 3, 2, 8), Layout.full(1, 3)
    assert Sum(2, 8, parts=[Rope]).bias(x, x, layout, layout) is None


def test_needs_trees_if_a_part_does():
    assert Sum(2, 8, parts=[Rope, Dependency]).needs_trees
    assert not Sum(2, 8, parts=[Rope, Alibi]).needs_trees


def test_is_relative_if_every_part_is():
    assert Sum(2, 8, parts=[Rope, Alibi]).relative
    assert not Sum(2, 8, parts=[Rope, Fire]).relative


def test_rotations_in_the_same_pairs_add_their_angles():
    layout, x = Layout.full(1, 6), torch.randn(1, 6, 2, 8, dtype=torch.float64)
    twice = Sum(2, 8, parts=[Rope, Rope]).rotate(x, layout, "key")
    doubled = Layout(2 * layout.position, layout.document)
    assert_close(twice, Rope(2, 8).rotate(x, doubled, "key"))
    Sum(2, 8, parts=[Rope, XPos])


def test_every_part_is_asked_about_the_mask():
    total = Sum(2, 8, parts=[T5, XPos])
    total.admit(Mask(True))
    with pytest.raises(ValueError, match=r"^mask must be causal for XPos"):
        total.admit(Mask(False))
    assert total.parts[0].both_ways


def test_is_built_from_a_spec():
    spec = {"name": "sum", "parts": ["alibi", {"name": "rope", "base": 100.0}]}
    total = factory(spec, ("position",))(2, 8)
    assert [type(part) for part in total.parts] == [Alibi, Rope]
    assert total.parts[1].base == 100.0


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([], r"parts must name at least one position, but got none\."),
        (
            [Alibi, Sinusoidal],
            r"parts must act inside attention, but got Sinusoidal, which acts at the foot of a stack\.",
        ),
        (
            [Rope, partial(Rope, pairing="half")],
            r"rotations of one sum must turn the same pairs of channels, or products no longer depend on distance, "
            r"but got Rope and Rope with different ones\.",
        ),
    ],
)
def test_refuses(parts, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Sum(2, 8, parts=parts)
