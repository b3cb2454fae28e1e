"""Every registered block, in every surrounding its family can have, keeps every law or refuses with a reason."""

import pytest
import torch

from blocks.cases import built, cases
from blocks.laws import laws_of
from blocks.laws.check import held
from blocks.laws.effects import observe, silent
from registry import REGISTRY

FAMILIES = sorted({name.split("/")[0] for name in REGISTRY.names()})
CASES = [pytest.param(case, id=f"{name}: {case.label}") for name in REGISTRY.names() for case in cases(name)]


@pytest.mark.parametrize("case", CASES)
def test_a_block_keeps_its_laws_or_refuses(case, device):
    try:
        block = built(case, device)
    except ValueError as refusal:
        sentence = str(refusal)
        assert sentence.endswith("."), f"a refusal must be a sentence, but is {sentence!r}"
        assert len(sentence) > 30, f"a refusal must say why, but says {sentence!r}"
        return
    broken = []
    for law in laws_of(block) if case.laws is None else case.laws:
        verdict = held(law, block)
        if not verdict.ok:
            broken.append(f"{verdict.law}: {verdict.says}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", REGISTRY.names())
def test_a_block_lives_somewhere(name):
    """A name that is refused in all its cases would be under no law at all."""
    options = list(cases(name))
    refusals = []
    for case in options:
        try:
            built(case)
            return
        except ValueError as refusal:
            refusals.append(str(refusal))
    assert not options, f"{name} is refused everywhere: {refusals}"


@pytest.mark.parametrize("name", [name for name in REGISTRY.names() if REGISTRY[name].choices and any(cases(name))])
def test_every_choice_of_a_block_has_an_effect(name):
    assert list(silent(name, cases, observe)) == []


@pytest.mark.parametrize("name", REGISTRY.names())
def test_a_block_starts_alike_under_one_seed(name):
    for case in cases(name):
        if case.laws is not None:
            continue
        try:
            first, second = built(case), built(case)
        except ValueError:
            continue
        if isinstance(first, torch.nn.Module):
            for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
                assert torch.equal(a, b), f"{case.label}: {key} differs under one seed"
