"""Every law on every case of a name, and every choice of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from blocks.cases import Case, built, cases
from blocks.laws.effects import observe, silent
from blocks.laws.table import laws_of
from registry import REGISTRY
from registry.errors import MachineError


class Bench(NamedTuple):
    """How the names of a floor are tried.

    cases: The surroundings of a name.
    laws_of: The laws of what a case builds.
    observe: What is seen of what a case builds, for comparison with what other choices build.
    """

    cases: Callable[[str], Iterator[Case]]
    laws_of: Callable[[Any], list[Callable[[Any], None]]]
    observe: Callable[[Any], Iterator[tuple[str, Any]]]


BLOCKS = Bench(cases, laws_of, observe)


class Verdict(NamedTuple):
    """What one law says of one case. ``ok`` None: the case is refused, ``says`` is the refusal."""

    law: str
    case: str
    ok: bool | None
    says: str = ""


def check(name: str, bench: Bench = BLOCKS, device: torch.device | str = "cpu") -> Iterator[Verdict]:
    """Every law on every case of a registered name, one verdict each; a refused case has one verdict.

    Then a verdict on each choice that changes nothing in any case. A name without a verdict other than refusals is
    under no law.
    """
    refusals, tried = [], False
    for case in bench.cases(name):
        try:
            block = built(case, device)
        except ValueError as refusal:
            if not isinstance(refusal.__cause__ or refusal, MachineError):  # that may be tried elsewhere
                refusals.append(str(refusal))
            yield Verdict("refusal", case.label, None, str(refusal))
            continue
        for law in bench.laws_of(block) if case.laws is None else case.laws:
            tried = True
            yield held(law, block, case.label)
    if refusals and not tried:
        yield Verdict("lives somewhere", REGISTRY[name].short, False, "every case is refused.")
    if tried:
        for choice, says in silent(name, bench.cases, bench.observe):
            yield Verdict("every choice has an effect", choice, False, says)


def held(law: Callable[[Any], None], block: Any, label: str = "") -> Verdict:
    """What one law says of a block."""
    torch.manual_seed(0)
    try:
        law(block)
    except AssertionError as broken:
        return Verdict(law.__name__, label, False, str(broken))
    except Exception as error:  # a bug in the block: the other laws are still tried
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Verdict(
            law.__name__, label, False, f"{type(error).__name__} at {where.filename}:{where.lineno}: {error}"
        )
    return Verdict(law.__name__, label, True)
