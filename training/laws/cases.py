"""What every name that trains a model is tried as; the names of models' parts are tried as ``blocks.cases`` has it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import blocks.cases
from blocks.cases import Case, spec_of
from blocks.laws.specs import Spec
from registry import factory
from registry.core import MISSING, REGISTRY, Entry
from training.contracts import Data, Gives, Objective, Shape
from training.laws.data import Source
from training.laws.running import Writer
from training.laws.trying import LENGTH, own_cache, text_files, trained

SHAPES: tuple[Shape, ...] = ("decoder", "encoder", "encoder_decoder")
GIVES: tuple[Gives, ...] = ("text", "pairs")


def cases(name: str) -> Iterator[Case]:
    """Every surrounding in which the block called ``name`` is tried."""
    entry = REGISTRY[name]
    make = SURROUNDINGS.get(entry.family)
    yield from blocks.cases.cases(name) if make is None else make(entry)


def _tokenizers(entry: Entry) -> Iterator[Case]:
    yield Case(entry.short, _alone, spec_of(entry))


def _objectives(entry: Entry) -> Iterator[Case]:
    for shape in SHAPES:
        for gives in GIVES:
            yield Case(f"{entry.short} {shape} {gives}", partial(_objective, shape=shape, gives=gives), spec_of(entry))


def _objective(spec: Spec, shape: Shape, gives: Gives) -> Objective:
    tokenizer = trained(factory("tokenizer/byte")())
    return factory(spec)(tokenizer, LENGTH, shape, gives)


AMOUNT = 400_000
"""The most bytes, or pairs, that data is made of where the laws try it."""


def _data(entry: Entry) -> Iterator[Case]:
    """Data from one file and from a folder of several, where a choice without a default names what is read."""
    for path, tokenizer, length in (
        (text_files() / "0.txt", "tokenizer/byte", 64),
        (text_files(), "tokenizer/char", 48),
    ):
        spec = spec_of(entry)
        for choice in entry.choices.values():
            if choice.default == MISSING and isinstance(spec.get(choice.name), str):
                spec[choice.name] = str(path)
            elif isinstance(choice.default, int) and choice.default > AMOUNT:
                spec[choice.name] = AMOUNT
        yield Case(f"{entry.short} {tokenizer} {length}", partial(_source, tokenizer=tokenizer, length=length), spec)


def _source(spec: Spec, tokenizer: str, length: int) -> Source:
    """Data of a spec, which is made once to see that it can be."""
    source = Source(partial(_set_up, spec, tokenizer, length))
    try:
        source.make(0)
    except OSError as error:
        raise ValueError(f"{spec['name']} must read what it is given, but got {error}.") from error
    return source


def _set_up(spec: Spec, tokenizer: str, length: int, seed: int) -> Data:
    gives = REGISTRY[spec["name"]].constructor.gives  # type: ignore[attr-defined]
    with own_cache():
        says = factory(tokenizer)()
        objective = factory("objective/next_token")(says, length, "decoder", gives)
        data: Data = factory(spec)(says, objective, length, seed)
        data.setup("fit")
        return data


def _optimizers(entry: Entry) -> Iterator[Case]:
    yield Case(entry.short, _alone, spec_of(entry))


def _schedules(entry: Entry) -> Iterator[Case]:
    for steps in (1000, 60, -1):
        yield Case(f"{entry.short} {steps} steps", partial(_schedule, steps), spec_of(entry))


def _schedule(steps: int, spec: Spec) -> Any:
    return factory(spec)(steps)


def _loggers(entry: Entry) -> Iterator[Case]:
    yield Case(entry.short, _writer, spec_of(entry))


def _writer(spec: Spec) -> Writer:
    make = factory(spec)
    with tempfile.TemporaryDirectory() as folder:  # whether it can be made
        make(Path(folder))
    return Writer(make)


def _alone(spec: Spec) -> Any:
    return factory(spec)()


SURROUNDINGS: dict[str, Callable[[Entry], Iterator[Case]]] = {
    "tokenizer": _tokenizers,
    "objective": _objectives,
    "data": _data,
    "optimizer": _optimizers,
    "schedule": _schedules,
    "callback": _optimizers,
    "logger": _loggers,
}
