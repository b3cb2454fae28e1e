"""The table: from the name in a config to the constructor in a file.

A registered name is ``family/name``. The keyword-only part of its constructor is its schema: what a
person may choose. The positional-only part is what its parent tells it, and no config reaches it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from registry.errors import ConfigError

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")

Factory = Callable[..., T]
"""A constructor whose choices are made and whose facts are still open; annotates a choice that is a block."""

MISSING = "???"
"""What a config holds where a choice has no default and was not made."""


@dataclass(frozen=True)
class Choice:
    """One keyword of a constructor.

    type: its annotation. default: what it is when nobody chooses (``MISSING``: somebody must).
    doc: its line in the docstring's ``Args``.
    families: where a name in it is looked up, if the choice is a block or a list of blocks.
    """

    name: str
    type: Any
    default: Any
    doc: str
    families: tuple[str, ...] = ()


class Entry:
    """A name, its constructor, and what can be chosen."""

    def __init__(self, name: str, constructor: Callable[..., Any], defaults: Mapping[str, Any]) -> None:
        self.name = name
        self.family, self.short = name.split("/")
        self.constructor = constructor
        self.defaults = dict(defaults)

    @property
    def where(self) -> str:
        """``file:line`` of the constructor."""
        try:
            return f"{inspect.getsourcefile(self.constructor)}:{inspect.getsourcelines(self.constructor)[1]}"
        except (OSError, TypeError):
            return f"{self.constructor.__module__}.{self.constructor.__qualname__}"

    @property
    def doc(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.constructor) or "").partition("\n")[0]

    @functools.cached_property
    def facts(self) -> tuple[str, ...]:
        """What the parent gives, in order."""
        return tuple(p.name for p in self._parameters if p.kind is p.POSITIONAL_ONLY)

    @functools.cached_property
    def choices(self) -> dict[str, Choice]:
        """What a person may choose, by name."""
        if inspect.isclass(self.constructor):
            # A generic base keeps ``__init__``'s module globals, which is where its annotations mean something.
            init = self.constructor.__init__
            hints = typing.get_type_hints(init)
        else:
            hints = typing.get_type_hints(self.constructor)
        docs = _argument_docs(inspect.getdoc(self.constructor) or "")
        found = {}
        for p in self._parameters:
            if p.kind is not p.KEYWORD_ONLY:
                continue
            kind = hints.get(p.name, Any)
            default = self.defaults.get(p.name, MISSING if p.default is p.empty else p.default)
            found[p.name] = Choice(p.name, kind, default, docs.get(p.name, ""), _families(kind))
        return found

    @functools.cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.constructor).parameters.values())


def _argument_docs(doc: str) -> dict[str, str]:
    """The lines of a Google-style ``Args`` section, by argument."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    if section is None:
        return {}
    lines = inspect.cleandoc(section[1]).splitlines()
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        head = re.match(r"^([\w, ]+):\s*(.*)$", line)
        if head:
            names = [n.strip() for n in head[1].split(",")]
            docs.update(dict.fromkeys(names, head[2]))
        elif line.strip():
            for n in names:
                docs[n] += f" {line.strip()}"
    return docs


def _families(kind: Any) -> tuple[str, ...]:
    """The families of the blocks that an annotation asks for; empty if it asks for none."""
    origin = get_origin(kind)
    if origin is Callable or origin is typing.get_origin(Callable[..., Any]):
        return _result_families(get_args(kind)[-1])
    if origin in (list, tuple, typing.Union, types.UnionType):
        return tuple(dict.fromkeys(f for a in get_args(kind) for f in _families(a)))
    return ()


def _result_families(result: Any) -> tuple[str, ...]:
    if get_origin(result) in (typing.Union, types.UnionType):
        return tuple(dict.fromkeys(f for a in get_args(result) for f in _result_families(a)))
    return tuple(getattr(get_origin(result) or result, "families", ()))


class Bound(functools.partial):  # type: ignore[type-arg]
    """A constructor with its choices made; a refusal it raises says where in the config it stands."""

    path: str

    def __call__(self, *facts: Any) -> Any:
        try:
            return super().__call__(*facts)
        except ConfigError:
            raise
        except ValueError as refusal:
            raise ConfigError(f"{self.path}: {refusal}") from refusal


class Registry:
    """A table of constructors."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, *, override: bool = False, **defaults: Any) -> Callable[[C], C]:
        """Enter the decorated constructor under ``name``; ``defaults`` are this name's own.

        Several names may share a constructor. A reloaded module may enter its own again.

        Raises:
            ConfigError: ``name`` is not ``family/name``; another constructor has it and ``override``
                is not set; ``defaults`` names no choice of the constructor.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*", name):
            raise ConfigError(f"a block's name must be 'family/name' in lower case, but got {name!r}.")

        def enter(constructor: C) -> C:
            entry = Entry(name, constructor, defaults)
            holder = self._entries.get(name)
            if holder and not override and _origin(holder.constructor) != _origin(constructor):
                raise ConfigError(
                    f"the name {name!r} must be free, but {holder.where} has it and {entry.where} asks for it. "
                    "Pick another name, or pass override=True to replace it."
                )
            known = {p.name for p in entry._parameters if p.kind is p.KEYWORD_ONLY}
            for key in defaults:
                if key not in known:
                    raise ConfigError(
                        f"{name!r} has no choice {key!r} to give a default to{guess(key, known)} ({entry.where})"
                    )
            self._entries[name] = entry
            return constructor

        return enter

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def names(self, *families: str) -> list[str]:
        """Every full name, or every one of some families, in alphabetical order."""
        return sorted(n for n, e in self._entries.items() if not families or e.family in families)

    def find(self, name: str, families: Iterable[str], path: str = "") -> Entry:
        """The entry called ``name`` (in full, or without its family) in one of ``families``.

        Raises:
            ConfigError: There is none.
        """
        families = tuple(families)
        if name in self._entries and (not families or self._entries[name].family in families):
            return self._entries[name]
        for family in families:
            if f"{family}/{name}" in self._entries:
                return self._entries[f"{family}/{name}"]
        short = [self._entries[n].short for n in self.names(*families)]
        raise ConfigError(
            f"{path or 'spec'}: no {' or '.join(families) or 'block'} is named {name!r}{guess(name, short)} "
            f"There are: {', '.join(short) or 'none'}. A block of your own must be listed in plugins=[...]."
        )

    def factory(self, spec: Mapping[str, Any] | str, families: Iterable[str] = (), path: str = "") -> Factory[Any]:
        """Bind the choices of ``spec``, and of every spec inside it, to its constructor.

        Args:
            spec: A name, or a mapping with the key ``name``; the rest are choices.
            families: Where the name is looked up; not needed for a full name.
            path: Where ``spec`` sits in the config, for messages.

        Raises:
            ConfigError: An unknown block, a choice it does not have, a value of the wrong type, or a
                choice that must be made and was not.
        """
        made = {"name": spec} if isinstance(spec, str) else dict(spec)
        if "name" not in made:
            raise ConfigError(f"{path or 'spec'}: a block must be a name or a mapping with a 'name', but got {made}.")
        entry = self.find(made.pop("name"), families, path)
        unknown = [k for k in made if k not in entry.choices]
        if unknown:
            raise ConfigError(unknown_choice(entry, unknown[0], path))
        choices = {}
        for key, choice in entry.choices.items():
            value = made.get(key, choice.default)
            at = f"{path}.{key}" if path else key
            if isinstance(value, str) and value == MISSING:
                raise ConfigError(f"{at}: {entry.short} must be told {key!r} ({choice.doc or 'it has no default'})")
            choices[key] = self._bind(value, choice, at)
        bound = Bound(entry.constructor, **choices)
        bound.path = path or entry.name
        return bound

    def _bind(self, value: Any, choice: Choice, path: str) -> Any:
        if not choice.families or value is None or callable(value):
            return value
        if isinstance(value, list | tuple):
            return [self._bind(v, choice, f"{path}[{i}]") for i, v in enumerate(value)]
        return self.factory(value, choice.families, path)


def unknown_choice(entry: Entry, key: str, path: str) -> str:
    """The sentence for a choice that ``entry`` does not have."""
    known = list(entry.choices)
    return (
        f"{f'{path}.{key}' if path else key}: {entry.short} has no choice {key!r}{guess(key, known)} "
        f"It has: {', '.join(known) or 'none'}."
    )


def guess(word: str, known: Iterable[str]) -> str:
    """How a sentence about an unknown word ends: with the nearest known one, if any is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f". Did you mean {close[0]!r}?" if close else "."


def _origin(constructor: Callable[..., Any]) -> tuple[str, str]:
    return constructor.__module__, constructor.__qualname__


REGISTRY = Registry()
register = REGISTRY.register
factory = REGISTRY.factory
names = REGISTRY.names

__all__ = ["MISSING", "REGISTRY", "Bound", "Choice", "Entry", "Factory", "Literal", "Registry", "factory", "names", "register"]
