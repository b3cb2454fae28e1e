"""The blocks that the words of a command name: registered names, and files that register some."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from pathlib import Path

from registry import plugins
from registry.core import BY_ITS_FILE, REGISTRY
from registry.errors import ConfigError
from registry.values import guess


def is_file(word: str) -> bool:
    """It names a file, not a block."""
    return word.endswith(".py") or word.startswith(("/", "./", "../", "~")) or word.count("/") > 1


def named(words: Iterable[str], command: str, families: Collection[str] | None = None) -> list[str]:
    """The full names that ``words`` stand for, each once, in their order; a file stands for all that it registers.

    Args:
        words: Names, short or full, and files.
        command: The command, for error messages.
        families: Blocks of these only; None: of all.

    Raises:
        ConfigError: No such block has a name, or a file registers none.
    """
    found: list[str] = []
    for word in words:
        if is_file(word):
            found += _registered_by(word, command, families)
            continue
        refuse_family(word, command, families)
        if families is not None:
            found.append(REGISTRY.find(word, tuple(families), command, BY_ITS_FILE).name)
            continue
        these = [n for n in REGISTRY.names() if word in (n, REGISTRY[n].short)]
        if not these:
            known = REGISTRY.names()
            near = guess(word, sorted([*known, *(REGISTRY[n].short for n in known)]))
            raise ConfigError(f"{command}: no block is named {word!r}{near} A block of your own must be {BY_ITS_FILE}.")
        found += these
    return list(dict.fromkeys(found))


def refuse_family(word: str, command: str, families: Collection[str] | None = None) -> None:
    """Raises ``ConfigError`` for the name of a family, if no block of ``families`` (None: of any) has it too."""
    blocks = [REGISTRY[n].short for n in REGISTRY.names(*(families or ()))]
    if word in REGISTRY.families() and word not in blocks:
        raise ConfigError(
            f"{command}: what is named must be a block or a file, but {word!r} is a family. Name one of its blocks, as "
            f"in {command} {REGISTRY.names(word)[0]}; list {word} prints them."
        )


def _registered_by(word: str, command: str, families: Collection[str] | None) -> list[str]:
    """The names that a file registers, also where it was imported before."""
    before = set(REGISTRY.names())
    file = plugins.load_one(word, command)
    made = [n for n in REGISTRY.names(*(families or ())) if n not in before or _file_of(n) == file]
    if not made:
        what = "a block" if families is None else f"a block of {', '.join(families)}"
        raise ConfigError(f"{command}: {file} must register {what} that is not there yet, but registers none.")
    return made


def _file_of(name: str) -> str:
    """The file in which a name's constructor is written."""
    try:
        return str(Path(inspect.getsourcefile(REGISTRY[name].constructor) or "").resolve())
    except TypeError:  # it is written in none
        return ""
