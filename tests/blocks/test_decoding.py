"""Everything decodes: under every mask and position that a causal mixer accepts, whole = chunks = steps.

`make test` draws pairs, `make test-all` (`pytest --all`) takes every one.
"""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from blocks import laws
from blocks.cases import MIXERS, Case, built, is_attention_position, mask_of, mixer_of
from registry import REGISTRY

DRAWN = 60
LAWS = (
    laws.hides_the_future,
    laws.ignores_padding,
    laws.steps_as_a_whole,
    laws.steps_through_documents,
    laws.resumes_after_padding,
    laws.follows_its_rows,
)


def combinations() -> list[tuple[str, str, str]]:
    """Every mixer, mask and position, without the names that mean nothing without parts."""
    found = []
    for mixer in REGISTRY.names(*MIXERS):
        heads = REGISTRY[mixer].family == "attention"
        positions = [p for p in REGISTRY.names("position") if is_attention_position(p)] if heads else ["position/none"]
        masks = [m for m in REGISTRY.names("mask") if m not in ("mask/and", "mask/or")]
        found += itertools.product([mixer], masks, positions)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = combinations()
    if not metafunc.config.getoption("--all"):
        every = random.Random(0).sample(every, len(every))
        every = [c for c in every if not refused(*c)][:DRAWN]
    metafunc.parametrize(("mixer", "mask", "position"), every, ids=["-".join(c) for c in every])


def refused(mixer: str, mask: str, position: str) -> bool:
    try:
        mixer_of(mixer, mask_of(mask, True), position)
    except ValueError:
        return True
    return False


def test_a_causal_mixer_decodes(mixer, mask, position, device):
    case = Case("", lambda spec: mixer_of(mixer, mask_of(mask, True), position), {})
    try:
        block = built(case, device)
    except ValueError as refusal:
        sentence = str(refusal)
        assert sentence.endswith("."), sentence
        return
    assert block.mask.causal
    broken = []
    for law in LAWS:
        torch.manual_seed(0)
        try:
            law(block)
        except Exception as error:
            broken.append(f"{law.__name__}: {type(error).__name__}: {error}")
    assert not broken, "\n".join(broken)
