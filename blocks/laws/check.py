"""Every law on every case of a name, and every choice of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from blocks.cases import Case, built, cases
from blocks.laws.effects import observe, silent
from blocks.laws.faults import FAULTS, fault, file_of
from blocks.laws.table import laws_of
from blocks.laws.trying import Broken
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
    short, file = REGISTRY[name].short, file_of(REGISTRY[name].constructor)
    refusals, tried = [], False
    try:
        surroundings = list(bench.cases(name))
    except FAULTS as error:
        yield Verdict("is tried", short, False, fault(error, file))
        return
    for case in surroundings:
        try:
            block = built(case, device)
        except ValueError as refusal:
            if not isinstance(refusal.__cause__ or refusal, MachineError):  # that may be tried elsewhere
                refusals.append(str(refusal))
            yield Verdict("refusal", case.label, None, str(refusal))
            continue
        except FAULTS as error:  # a bug in the block: the other cases are still tried
            tried = True
            yield Verdict("is built", case.label, False, fault(error, file))
            continue
        for law in bench.laws_of(block) if case.laws is None else case.laws:
            tried = True
            yield held(law, block, case.label, file)
    if refusals and not tried:
        yield Verdict("lives somewhere", short, False, "every case is refused.")
    if tried:
        for choice, says in silent(name, bench.cases, bench.observe):
            yield Verdict("every choice has an effect", choice, False, says)


def held(law: Callable[[Any], None], block: Any, label: str = "", file: str = "") -> Verdict:
    """The verdict of one law on a block; of an exception the line in ``file``, the block's own, is named."""
    torch.manual_seed(0)
    try:
        law(block)
    except Broken as broken:
        return Verdict(law.__name__, label, False, str(broken))
    except FAULTS as error:  # a bug in the block: the other laws are still tried
        return Verdict(law.__name__, label, False, fault(error, file))
    return Verdict(law.__name__, label, True)


@contextlib.contextmanager
def without_torch_logs() -> Iterator[None]:
    """Silences the log handlers of torch: why a block can not be compiled is in its verdict."""
    loggers = [*logging.root.manager.loggerDict.items()]
    handlers = {
        handler
        for name, logger in loggers
        if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }
    levels = {handler: handler.level for handler in handlers}
    try:
        for handler in levels:
            handler.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)
