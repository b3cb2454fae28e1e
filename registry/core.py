"""The table: from the name in a config to the constructor in a file.

A registered name is ``family/name``. The keyword-only part of its constructor is its schema: what a
person may choose. The positional-only part is what its parent tells it, and no config reaches it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from registry.errors import BlockwrightError, ConfigError
from registry.neighbours import Loader
from registry.values import Block, Fitted, MisfitError, families_of, fitted, guess, plain_default, same, spoken

C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")

Factory = Callable[..., T]
"""A constructor whose choices are made and whose facts are still open; annotates a choice that is a block."""

MISSING = "???"
"""What a config holds where a choice has no default and was not made."""

MIXERS = ("attention", "linear", "recurrent", "convolution")
"""Families that share the slot ``mixer``, and so share their names."""

FACTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "attention": (("d_model", "mask", "position"),),
    **dict.fromkeys(MIXERS[1:], (("d_model", "mask"),)),
    "mask": (("causal",),),
    "position": (("n_heads", "head_dim"), ("d_model", "max_length")),
    "score": (("n_heads", "head_dim"),),
    "normaliser": (("n_heads",),),
    **dict.fromkeys(("norm", "ffn"), (("d_model",),)),
    **dict.fromkeys(("residual", "layer", "stack"), (("d_model", "site"),)),
    **dict.fromkeys(("embedding", "head"), (("vocab_size", "d_model"),)),
    "model": (("vocab_size",),),
    **dict.fromkeys(("init", "tokenizer", "optimizer", "callback"), ((),)),
    "objective": (("tokenizer", "max_length", "shape", "gives"),),
    "data": (("tokenizer", "objective", "max_length", "seed"),),
    "schedule": (("max_steps",),),
    "logger": (("folder",),),
}
"""What the constructors of each family of ours are given by the parent, in order; a position one of two things."""


IN_A_CONFIG = "listed in plugins=[...]"
"""How a block of one's own comes to be known where a config names it."""

BY_THE_ENVIRONMENT = "listed in BLOCKWRIGHT_PLUGINS"
"""The same, where a command without ``plugins=`` names it."""

BY_ITS_FILE = f"named by its file (./my_block.py), or be {BY_THE_ENVIRONMENT}"
"""The same, where a command that takes files names it."""


class SameNumbers(NamedTuple):
    """Marks a choice that changes no number, as in ``Annotated[Literal["auto", "sdpa"], SameNumbers("...")]``.

    Every other choice must be seen to change parameters, outputs, training or cost somewhere (``blocks.laws.effects``).
    """

    reason: str


RESERVED = {"auto": "it leaves the choice to the blocks", "name": "it is the key that names a block"}
RESERVED |= dict.fromkeys(
    ("on", "off", "yes", "no", "true", "false", "null", "inf", "nan"), "it is not text in a config"
)


@dataclass(frozen=True)
class Choice:
    """One keyword of a constructor.

    type: its annotation. default: what it is when nobody chooses (``MISSING``: somebody must).
    doc: its line in the docstring's ``Args``.
    families: where a name in it is looked up, if the choice is a block or a list of blocks.
    same_numbers: why it changes no number, where that is declared (``SameNumbers``).
    """

    name: str
    type: Any
    default: Any
    doc: str
    families: tuple[str, ...] = ()
    same_numbers: str = ""

    @functools.cached_property
    def plain(self) -> Any:
        """The default as a config holds it. It stands for the default, whatever other values the type allows.

        Raises:
            MisfitError: No config can hold it.
        """
        return plain_default(self.default, self.type)

    def is_default(self, value: Any) -> bool:
        """Whether a value in a spec is the default."""
        try:
            return same(plain_default(value, self.type), self.plain)
        except MisfitError:
            return False

    def fitted(self, value: Any, block: Block) -> Fitted:
        """``value`` in a spec and for the constructor; of a default with fields, those that ``value`` leaves out stay.

        Raises:
            MisfitError: It is neither the default nor of the type.
        """
        if not self.families and self.default is not MISSING:
            if isinstance(value, Mapping) and isinstance(self.plain, Mapping) and not isinstance(self.default, Mapping):
                value = {**self.plain, **value}
            if self.is_default(value):
                return Fitted(self.plain, self.default)
        return fitted(value, self.type, block)


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
        """What the parent gives, in order; of ``*facts`` what the family is given."""
        given = tuple(p.name for p in self._parameters if p.kind is p.POSITIONAL_ONLY)
        return given + (self._family_facts()[len(given) :] if self._takes_more else ())

    @property
    def _takes_more(self) -> bool:
        return any(p.kind is p.VAR_POSITIONAL for p in self._parameters)

    def _family_facts(self) -> tuple[str, ...]:
        """What a block of its family is given; of several possibilities the one that a base class states."""
        possible = FACTS.get(self.family, ((),))
        for kind in getattr(self.constructor, "__mro__", ()) if len(possible) > 1 else ():
            code = getattr(vars(kind).get("__init__"), "__code__", None)
            if code and (stated := code.co_varnames[1 : code.co_posonlyargcount]) in possible:
                return tuple(stated)
        return possible[0]

    @functools.cached_property
    def choices(self) -> dict[str, Choice]:
        """What a person may choose, by name."""
        docs = argument_docs(inspect.getdoc(self.constructor) or "")
        found = {}
        for p in self._parameters:
            if p.kind is not p.KEYWORD_ONLY:
                continue
            hint = self._kind(p)
            marks = getattr(hint, "__metadata__", ())
            kind = hint.__origin__ if marks else hint
            default = self.defaults.get(p.name, MISSING if p.default is p.empty else p.default)
            reason = next((mark.reason for mark in marks if isinstance(mark, SameNumbers)), "")
            found[p.name] = Choice(p.name, kind, default, docs.get(p.name, ""), families_of(kind), reason)
        return found

    def _kind(self, parameter: inspect.Parameter) -> Any:
        """The annotation of a choice, with the names in it looked up."""
        if parameter.annotation is parameter.empty:
            return Any
        # A generic base keeps ``__init__``'s module globals, which is where its annotations mean something.
        init: Any = self.constructor.__init__ if inspect.isclass(self.constructor) else self.constructor
        init = inspect.unwrap(init)
        names = dict(getattr(init, "__globals__", None) or vars(sys.modules[self.constructor.__module__]))
        names |= {t.__name__: t for owner in (self.constructor, init) for t in getattr(owner, "__type_params__", ())}
        try:
            try:
                return _looked_up(parameter.annotation, names)
            except NameError:
                return _looked_up(parameter.annotation, names | _for_type_checkers(names))
        except Exception as error:  # an annotation is an expression, and can end in any error
            raise ConfigError(
                f"{self.where}: the annotation of {parameter.name!r} must have a meaning when the program runs, but "
                f"{parameter.annotation!r} ends with {type(error).__name__}: {error}. Import its names where they can "
                "be imported, outside `if TYPE_CHECKING:`."
            ) from error

    @functools.cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.constructor).parameters.values())


def _looked_up(annotation: Any, names: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"choice": annotation})
    return typing.get_type_hints(holder, names, include_extras=True)["choice"]


def _for_type_checkers(names: Mapping[str, Any]) -> dict[str, Any]:
    """What the imports under ``if TYPE_CHECKING:`` of a module give, of those that can be done when it runs."""
    loader = names.get("__loader__")
    try:
        tree = ast.parse(Path(str(names.get("__file__"))).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    found = dict(names)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.Import | ast.ImportFrom):
                    alone = ast.Module([line], [])
                    alone = loader.rewritten(alone) if isinstance(loader, Loader) else alone
                    with contextlib.suppress(ImportError):
                        exec(compile(alone, str(names.get("__file__")), "exec"), found)
    return {name: value for name, value in found.items() if name not in names}


def argument_docs(doc: str) -> dict[str, str]:
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


class Bound(functools.partial):  # type: ignore[type-arg]
    """A constructor with its choices made; a refusal it raises says where in the config it stands.

    A ``BlockwrightError`` keeps its kind, and so the status that the program ends with; any other ``ValueError``
    becomes a ``ConfigError``.
    """

    path: str

    def __call__(self, *facts: Any) -> Any:
        try:
            return super().__call__(*facts)
        except BlockwrightError as refusal:
            if not refusal.located:
                refusal.args = (self._located(refusal),)
                refusal.located = True
            raise
        except ValueError as refusal:
            located = ConfigError(self._located(refusal))
            located.located = True
            raise located from refusal

    def _located(self, refusal: ValueError) -> str:
        lines = (line if line.endswith((".", "?")) else f"{line}." for line in str(refusal).splitlines())
        return "\n".join(f"{self.path}: {line}" for line in lines)


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
        check_name(name)

        def enter(constructor: C) -> C:
            entry = Entry(name, constructor, defaults)
            for holder in self._rivals(entry):
                if not override and _origin(holder.constructor) != _origin(constructor):
                    slot = "" if holder.name == name else f" as {holder.name!r}, and all mixers share one slot"
                    raise ConfigError(
                        f"the name {name!r} must be free, but {holder.where} has it{slot} and {entry.where} asks for "
                        "it. Pick another name, or pass override=True to replace it."
                    )
            _check_signature(entry)
            known = [p.name for p in entry._parameters if p.kind is p.KEYWORD_ONLY]
            for key in defaults:
                if key not in known:
                    raise ConfigError(
                        f"{name!r} has no choice {key!r} to give a default to{guess(key, known)} ({entry.where})"
                    )
            for holder in self._rivals(entry):
                del self._entries[holder.name]
            self._entries[name] = entry
            return constructor

        return enter

    def _rivals(self, entry: Entry) -> list[Entry]:
        """Who has this name now, in this family or in one that shares its slot."""
        families = MIXERS if entry.family in MIXERS else (entry.family,)
        return [self._entries[n] for f in families if (n := f"{f}/{entry.short}") in self._entries]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def names(self, *families: str) -> list[str]:
        """Every full name, or every one of some families, in alphabetical order."""
        return sorted(n for n, e in self._entries.items() if not families or e.family in families)

    def families(self) -> list[str]:
        """Every family that has a name, in alphabetical order."""
        return sorted({e.family for e in self._entries.values()})

    def find(self, name: str, families: Iterable[str], path: str = "", own: str = IN_A_CONFIG) -> Entry:
        """The entry called ``name`` (in full, or without its family) in one of ``families``.

        ``path`` and ``own``, how a block of one's own comes to be known, are for error messages.

        Raises:
            ConfigError: There is none.
        """
        families = tuple(families)
        if name in self._entries and (not families or self._entries[name].family in families):
            return self._entries[name]
        for family in families:
            if f"{family}/{name}" in self._entries:
                return self._entries[f"{family}/{name}"]
        short = [self._entries[n].short for n in self.names(*families)] if families else self.names()
        elsewhere = [n for n in self.names() if str(name) in (n, self._entries[n].short)]
        if elsewhere and families:
            what = f"{elsewhere[0]} is not {' or '.join(families)}."
        else:
            what = f"no block is named {name!r}{guess(name, short)}"
        raise ConfigError(
            f"{path or 'spec'}: {what} There are: {', '.join(short) or 'none'}. A block of your own must be {own}."
        )

    def complete(self, spec: Mapping[str, Any] | str, families: Iterable[str] = (), path: str = "") -> dict[str, Any]:
        """``spec`` with every choice written out, in it and in every spec inside it, and every name in full.

        Raises:
            ConfigError: With a line for everything that is wrong: unknown blocks, choices they do not
                have, values of the wrong type, choices that must be made and were not.
        """
        completion = Completion(self)
        full = completion.spec(spec, families, path)
        completion.judge()
        assert full is not None
        return full

    def factory(
        self,
        spec: Mapping[str, Any] | str,
        families: Iterable[str] = (),
        path: str = "",
        origins: Mapping[str, str] | None = None,
    ) -> Factory[Any]:
        """Bind the choices of ``spec``, and of every spec inside it, to its constructor.

        Args:
            spec: A name, or a mapping with the key ``name``; the rest are choices.
            families: Where the name is looked up; not needed for a full name.
            path: Where ``spec`` sits in the config, for messages.
            origins: For paths inside a resolved spec, where a person would change what is there.

        Raises:
            ConfigError: As ``complete``.
        """
        return self._bind(self.complete(spec, families, path), path, origins or {})

    def _bind(self, full: Mapping[str, Any], path: str, origins: Mapping[str, str]) -> Factory[Any]:
        entry = self._entries[full["name"]]
        choices = {}
        for key, choice in entry.choices.items():
            value = full[key]
            if choice.families:
                value = self._bind_blocks(value, f"{path}.{key}" if path else key, origins)
            choices[key] = choice.fitted(value, lambda made, _: made).real
        bound = Bound(entry.constructor, **choices)
        bound.path = origins.get(path, path) or entry.name
        return bound

    def _bind_blocks(self, value: Any, path: str, origins: Mapping[str, str]) -> Any:
        if isinstance(value, Mapping):
            return self._bind(value, path, origins)
        if isinstance(value, list | tuple):
            return [self._bind_blocks(v, f"{path}.{i}", origins) for i, v in enumerate(value)]
        return value


class Completion:
    """Writes specs out in full, and gathers every complaint on the way.

    params: Choices to make wherever a block is used and nobody made them, by the block's name (short or
        in full), each as (value, where it was said).
    """

    def __init__(self, registry: Registry, params: Mapping[str, Mapping[str, tuple[Any, str]]] | None = None) -> None:
        self.registry = registry
        self.params = params or {}
        self.problems: dict[str, None] = {}

    def complain(self, line: str) -> None:
        """Note a line of the report; the same line is noted once."""
        self.problems[line] = None

    def judge(self) -> None:
        """Raises ``ConfigError`` with every line that was noted."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))

    def find(self, name: Any, families: Iterable[str], path: str) -> Entry | None:
        """The entry, or a complaint."""
        try:
            return self.registry.find(name, families, path)
        except ConfigError as unknown:
            self.complain(str(unknown))
            return None

    def spec(
        self,
        spec: Any,
        families: Iterable[str] = (),
        path: str = "",
        given: Mapping[str, Any] | None = None,
        paths: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """``spec`` written out in full; None (and a complaint) if its block is not known.

        Args:
            spec: A name, or a mapping with the key ``name``.
            families: Where the name is looked up.
            path: Where ``spec`` sits in the config.
            given: Finished values for some choices.
            paths: Where single choices of ``spec`` were made, and its name, if not at ``path``.
        """
        given, paths = given or {}, paths or {}
        made = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
        if not isinstance(made.get("name"), str):
            self.complain(f"{path or 'spec'}: a block must be a name or a mapping with a 'name', but got {spec!r}.")
            return None
        entry = self.find(made.pop("name"), families, paths.get("name", path))
        if entry is None:
            return None
        for key in made:
            if key not in entry.choices:
                self.complain(self.unknown_choice(entry, key, paths.get(key, f"{path}.{key}" if path else key)))
        full: dict[str, Any] = {"name": entry.name}
        for key, choice in entry.choices.items():
            if key in given:
                full[key] = given[key]
                continue
            at = paths.get(key, f"{path}.{key}" if path else key)
            if key in made:
                value = made[key]
            elif (said := self._param(entry, key)) is not None:
                value, at = said
            else:
                value = choice.default
            full[key] = self._value(value, choice, at, entry)
        return full

    def _value(self, value: Any, choice: Choice, at: str, entry: Entry) -> Any:
        if isinstance(value, str) and value == MISSING:
            what = f"{choice.name!r} ({choice.doc})" if choice.doc else repr(choice.name)
            self.complain(f"{at}: {entry.short} needs {what}; it has no default.")
            return None

        def block(made: Any, families: tuple[str, ...]) -> Any:
            if callable(made):
                raise MisfitError(f"must be {spoken(choice.type)}, but got {made!r}, which no config can name.")
            return self.spec(made, families, at)

        try:
            return choice.fitted(value, block).plain
        except MisfitError as misfit:
            here = f"{at}: "
            if value is choice.default:
                here += f"the default of {choice.name!r} at {entry.where} "
            self.complain(f"{here}{misfit}")
            return None

    def _param(self, entry: Entry, key: str) -> tuple[Any, str] | None:
        for name in (entry.name, entry.short, "*"):
            if key in self.params.get(name, {}):
                return self.params[name][key]
        return None

    def unknown_choice(self, entry: Entry, key: str, path: str) -> str:
        families = MIXERS if entry.family in MIXERS else (entry.family,)
        others = [self.registry[n] for n in self.registry.names(*families)]
        owners = [e.short for e in others if key in e.choices]
        known = list(entry.choices)
        return (
            f"{path}: {entry.short} has no choice {key!r}{guess(key, known)} It has: {', '.join(known) or 'none'}."
            + (f" {key!r} belongs to: {', '.join(owners)}." if owners else "")
        )


def check_name(name: str) -> None:
    """Raises ``ConfigError`` unless a block may be registered as ``name``."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*", name):
        raise ConfigError(f"a block's name must be 'family/name' in lower case, but got {name!r}.")
    family, short = name.split("/")
    if short in RESERVED or (family in MIXERS and short == "attention"):
        why = RESERVED.get(short, "it says: whatever the attention slot holds")
        raise ConfigError(f"a block must not be called {short!r}: {why}. Got {name!r}.")


def _check_signature(entry: Entry) -> None:
    """Whether a constructor can be called, and each argument is a fact from the parent or a choice of a person.

    Raises:
        ConfigError: A class leaves a method of its family undefined; an argument is neither before ``/`` nor behind
            ``*``; it can not be called with what its family is given.
    """
    missing = sorted(getattr(entry.constructor, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(
            f"{entry.where}: {entry.name!r} must define all that its family promises, but has no {', '.join(missing)}."
        )
    others = [p for p in entry._parameters if p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL, p.KEYWORD_ONLY)]
    if not others:
        _check_facts(entry)
        return
    named = ", ".join(str(p.replace(annotation=p.empty, default=p.empty)) for p in others)
    raise ConfigError(
        f"{entry.where}: each argument of {entry.name!r} must stand before `/` (what the parent gives) or behind `*` "
        f"(what a person chooses), but got {named}. Write it as def __init__(self, d_model, /, *, width=64)."
    )


def _check_facts(entry: Entry) -> None:
    """Whether a constructor can be called with what a block of its family is given. Other families are unknown here.

    Raises:
        ConfigError: It can not.
    """
    if entry.family not in FACTS:
        return
    taken = [p for p in entry._parameters if p.kind is p.POSITIONAL_ONLY]
    possible = FACTS[entry.family]
    most = math.inf if entry._takes_more else len(taken)
    if any(sum(p.default is p.empty for p in taken) <= len(facts) <= most for facts in possible):
        return
    got = _in_brackets([p.name for p in taken] + ["*facts"] * entry._takes_more)
    given = " or ".join(map(_in_brackets, possible))
    own = ", ".join([*entry._family_facts(), *(["/", "*"] if entry._family_facts() else ["*"]), "width=64"])
    raise ConfigError(
        f"{entry.where}: {entry.name!r} must take what a block of its family is given, {given}, before `/`, but got "
        f"{got}. Write it as def __init__(self, {own})."
    )


def _in_brackets(names: Iterable[str]) -> str:
    return f"({', '.join(names)})" if [*names] else "nothing"


def _origin(constructor: Callable[..., Any]) -> tuple[str, str]:
    """What makes a constructor the same as another: its file, under whatever name that was imported, and its name."""
    try:
        file = os.path.realpath(inspect.getsourcefile(constructor) or "")
    except TypeError:  # nothing that was written in a file
        file = ""
    return file or constructor.__module__, constructor.__qualname__


REGISTRY = Registry()
register = REGISTRY.register
factory = REGISTRY.factory
names = REGISTRY.names

__all__ = [
    "MISSING",
    "REGISTRY",
    "Bound",
    "Choice",
    "Entry",
    "Factory",
    "Literal",
    "Registry",
    "SameNumbers",
    "factory",
    "names",
    "register",
]
