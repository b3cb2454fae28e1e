"""The blocks that the words of a command name: registered names, and files that register some."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from registry import plugins
from registry.core import REGISTRY
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
    before = set(REGISTRY.names())
    found: list[str] = []
    for word in words:
        if is_file(word):
            module = plugins.load_one(word)
            made = [n for n in REGISTRY.names(*(families or ())) if n not in before]
            if not made:
                what = "a block" if families is None else f"a block of {', '.join(families)}"
                raise ConfigError(
                    f"{command}: {module} must register {what} that is not there yet, but registers none."
                )
            found += made
        elif families is not None:
            found.append(REGISTRY.find(word, tuple(families), command).name)
        else:
            these = [n for n in before if word in (n, REGISTRY[n].short)]
            if not these:
                short = [REGISTRY[n].short for n in before]
                raise ConfigError(f"{command}: no block is named {word!r}{guess(word, sorted([*short, *before]))}")
            found += sorted(these)
    return list(dict.fromkeys(found))
