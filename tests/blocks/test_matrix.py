"""Holds the matrix to what really happens when its combinations are built into a stack."""

from __future__ import annotations

import random

import pytest

from blocks.cases import small, stack_of
from blocks.matrix import abilities, judge, rows
from registry import REGISTRY

SAMPLE = 40


def drawn(config_all: bool) -> list:
    found = [r for r in rows() if r.slot != "cross_attention"]
    return found if config_all else random.Random(0).sample(found, min(SAMPLE, len(found)))


def test_what_the_matrix_says_is_what_a_stack_does(request):
    for row in drawn(request.config.getoption("--all", default=False)):
        position = None if row.position == "position/none" else row.position
        parts = {"mixer": row.mixer, "mask": small(REGISTRY[row.mask]), "position": position}
        try:
            stack = stack_of(row.slot == "decoder", **parts)
            if row.slot == "decoder":
                stack.empty_state(1, 4)
            refused = False
        except ValueError:
            refused = True
        assert refused == (row.verdict == "refused"), row


def test_every_mixer_stands_in_some_slot():
    stands = {r.mixer for r in rows() if r.verdict != "refused"}
    assert stands == set(REGISTRY.names("attention", "linear", "recurrent", "convolution"))


@pytest.mark.parametrize(
    ("slot", "mixer", "mask", "verdict"),
    [
        ("decoder", "recurrent/lstm", "mask/causal", "native"),
        ("decoder", "recurrent/lstm", "mask/window", "refused"),
        ("decoder", "attention/mha", "mask/full", "refused"),
        ("encoder", "attention/mha", "mask/window", "native"),
        ("cross_attention", "recurrent/lstm", "mask/full", "refused"),
        ("cross_attention", "attention/mha", "mask/full", "native"),
    ],
)
def test_a_verdict(slot, mixer, mask, verdict):
    assert judge(slot, mixer, mask, "position/none")[0] == verdict


def test_abilities_are_tried_not_declared():
    assert abilities("attention/mha") == ["causal", "both ways", "reads a memory", "any mask", "state grows"]
    assert abilities("recurrent/lstm") == ["causal", "both ways", "constant state"]
