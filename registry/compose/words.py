"""The words of a command line: each is parsed once, and kept as it was typed beside what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry.errors import ConfigError
from registry.quoting import advice, spelt
from registry.tables import SETTINGS, SLOTS
from registry.values import guess

SHOWING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
"""Flags that show something instead of running anything."""

WITH_VALUE = ("--cfg", "-c")
"""Flags that are followed by a value."""

TARGET = "_target_"
"""The key by which Hydra would build any Python object."""

FLAGS = (*SHOWING, "--multirun", "-m")
"""All flags that there are."""


@dataclass(frozen=True)
class Several:
    """The values that a multi-run tries one after another.

    values: Each of them, in plain containers.
    glob: Patterns that name options of the word's group (include, exclude), not yet looked up; None: there are none.
    open: The text of a range of numbers that only some sweepers can draw from, as ``interval(0,1)``.
    """

    values: tuple[Any, ...] = ()
    glob: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    open: str | None = None


@dataclass(frozen=True)
class Word:
    """One choice on the command line.

    typed: As a person wrote it. path: What it is about, with dots: ``+decoder/mixer=lstm`` is about
    ``decoder.mixer``. value: What it chooses, in plain containers; ``Several`` in a multi-run.
    deletes: It takes out what a preset or a default put at ``path``.
    """

    typed: str
    path: str
    value: Any = None
    deletes: bool = False

    @property
    def ours(self) -> bool:
        """It is not about Hydra itself."""
        return self.path.partition(".")[0] != "hydra"


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags (with the values that belong to them) and choices.

    Raises:
        ConfigError: A word is neither.
    """
    flags: list[str] = []
    choices: list[str] = []
    wrong: list[str] = []
    following = list(words)
    while following:
        word = following.pop(0)
        if word.startswith("-"):
            if word not in FLAGS and word.partition("=")[0] not in ("--cfg", "--info"):
                value = "" if "=" in word else "".join(w for w in following[:1] if "=" not in w and w[:1] not in "-~")
                del following[: bool(value)]
                wrong.append(_no_flag(word, value))
                continue
            flags.append(word)
            if word in WITH_VALUE:
                flags += following[:1]
                del following[:1]
        elif "=" in word or word.startswith("~") or flags[-1:] in (["--info"], ["-i"]):
            (flags if "=" not in word and not word.startswith("~") else choices).append(word)
        else:
            wrong.append(
                f"{word}: must be written as path=value, as in attention=gqa. A value with spaces goes in quotes."
            )
    if wrong:
        raise ConfigError("\n".join(wrong))
    return flags, choices


def _no_flag(word: str, value: str) -> str:
    """The sentence for a flag that there is not, and the word behind it that may be its value.

    Hydra takes ``-position=alibi`` for ``-p``, and nothing changes.
    """
    if "=" in word and not word.startswith("--"):
        return f"{word}: must be written without the dash: {word.lstrip('-')}."
    name = word.partition("=")[0].lstrip("-").replace("-", "_")
    if name in SETTINGS or name in SLOTS:
        chosen = value or word.partition("=")[2] or ("true" if SETTINGS.get(name) is bool else "<value>")
        return f"{f'{word} {value}'.rstrip()}: must be written as a choice: {name}={chosen}."
    return (
        f"{word.partition('=')[0]}: must be one of the flags {', '.join(FLAGS)}, or a choice, which is written as "
        f"path=value, as in trainer.max_steps=100{guess(word, FLAGS)}"
    )


def path_of(typed: str) -> str:
    """The path of a word, in whichever of its spellings: ``attention.name=gqa`` is about ``attention``."""
    path = typed.partition("=")[0].lstrip("+~").replace("/", ".")
    slot = path.removesuffix(".name")
    return slot if slot.rpartition(".")[2] in SLOTS else path


def python_objects(words: Iterable[Word]) -> list[str]:
    """A line for each word that names a Python object, in its path or in a mapping that it chooses."""
    return [
        f"{w.typed}: a config must name registered blocks, but this names a Python object."
        for w in words
        if TARGET in w.path.split(".") or _holds(w.value, TARGET)
    ]


def _holds(value: Any, key: str) -> bool:
    if isinstance(value, Several):
        value = value.values
    if isinstance(value, Mapping):
        return key in value or any(_holds(inside, key) for inside in value.values())
    return isinstance(value, list | tuple) and any(_holds(inside, key) for inside in value)


def twice(words: Iterable[Word]) -> list[str]:
    """A line for each path that is chosen more than once."""
    paths = [w.path for w in words if not w.deletes]
    many = [p for p in dict.fromkeys(paths) if paths.count(p) > 1]
    return [f"{p}: must be chosen once, but is chosen {paths.count(p)} times." for p in many]


def single(words: Iterable[Word], many: bool) -> list[str]:
    """A line for each word with several values where one run takes one."""
    return [
        f"{w.path}: must be one value, but got several: {w.typed.partition('=')[2]}. Add -m to run each of them, or "
        f"put quotes around a value that holds a comma: {advice(w.path, w.typed.partition('=')[2])}."
        for w in words
        if isinstance(w.value, Several) and w.ours and not many
    ]


def replaced(word: Word, value: Any) -> Word:
    """The word of one job of a multi-run: it chooses one of several values."""
    return replace(word, typed=f"{word.path}={spelt(value)}", value=value)
