"""What can be written on the command line: an option for every name in every slot, from the registry alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from registry.core import Choice
from registry.tables import LAYER_SLOTS, MODEL_SLOTS, RUN_SLOTS, STACK_SETTINGS, STACK_SLOTS, VARIANTS
from registry.values import MisfitError, plain_default


class Known(Protocol):
    """What an option is made from: an entry of the registry, or one read from a file without importing it."""

    @property
    def family(self) -> str: ...

    @property
    def short(self) -> str: ...

    @property
    def choices(self) -> Mapping[str, Choice]: ...


class Option(NamedTuple):
    """A name that a group of the command line can take, and what it puts into the config."""

    group: str
    name: str
    node: dict[str, Any]
    everywhere: bool = False
    """The node's keys are sections of the config, not choices of one block."""


WORDS: dict[str, tuple[str, ...]] = {
    "mixer": ("attention",),
    "cross_attention": ("auto", "none"),
    "position": ("auto",),
    "mask": ("auto",),
    "objective": ("auto",),
    "tokenizer": ("auto",),
}
"""What can be said in a slot beside the names of blocks."""


def options(entries: Iterable[Known], in_full: bool = False) -> Iterator[Option]:
    """Every option. ``in_full``: with every choice and its default, to be shown and completed.

    A config that is going to run names only the block, so that what a person chose and what is only
    a default can be told apart when general and special choices meet.
    """
    entries = list(entries)
    slots = {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS}
    models = [e for e in entries if e.family == "model"]
    stacks = sorted({stack for model in models for stack in _stacks(model)})
    for slot, families in slots.items():
        groups = [slot, *(f"{stack}/{slot}" for stack in stacks if slot in STACK_SLOTS)]
        for group in groups:
            for word in WORDS.get(slot, ()):
                yield Option(group, word, {"name": word})
            for entry in entries:
                if entry.family in families:
                    yield Option(group, entry.short, _node(entry, in_full and group == slot))
    for model in models:
        sections = {stack: _section() for stack in _stacks(model)} if in_full else {}
        parts = [*_stacks(model), *MODEL_SLOTS]
        node = {k: v for k, v in _node(model, in_full).items() if k not in parts}
        yield Option("model", model.short, {"model": node, **sections}, everywhere=True)


def _stacks(model: Known) -> list[str]:
    return [key for key, choice in model.choices.items() if choice.families == ("stack",)]


def _node(entry: Known, in_full: bool) -> dict[str, Any]:
    filled = {*LAYER_SLOTS, "layers"} if entry.family in ("layer", "stack", "residual") else set()
    shown = {k: _shown(c.default) for k, c in entry.choices.items() if in_full and k not in filled}
    return {"name": entry.short, **shown}


def _section() -> dict[str, Any]:
    settings = {**STACK_SETTINGS, "variants": {k: {s: dict(b) for s, b in v.items()} for k, v in VARIANTS.items()}}
    return settings | {slot: {} for slot in LAYER_SLOTS}


def shown_in_full(config: Mapping[str, Any], entries: Iterable[Known]) -> dict[str, Any]:
    """A config with every choice of each block that stands in a slot of the whole, and its default."""
    entries = list(entries)
    full = dict(config)
    for slot, families in {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS, "model": ("model",)}.items():
        chosen = config.get(slot)
        if isinstance(chosen, Mapping):
            name = str(chosen.get("name")).rpartition("/")[2]
            found = [e for e in entries if e.family in families and e.short == name]
            parts = [*_stacks(found[0]), *MODEL_SLOTS] if slot == "model" and found else []
            node = {k: v for k, v in _node(found[0], True).items() if k not in parts} if found else {}
            full[slot] = {**node, **chosen}
    return full


def _shown(default: Any) -> Any:
    """A default as a config holds it; one that no config can hold is refused where it is used."""
    try:
        return plain_default(default, Any)
    except MisfitError:
        return str(default)
