"""One block being chosen: what is said in general is refined, or replaced, by what is said in particular."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Level(NamedTuple):
    """One place of a config where slots are filled.

    path: Where that place is; empty for the whole config.
    made: What is said there, by slot.
    exact: ``path`` is where the one slot in ``made`` is filled, not where a mapping of slots stands.
    special: It is about some layers of a stack, not about all.
    """

    path: str
    made: Mapping[str, Any]
    exact: bool = False
    special: bool = False

    def where(self, slot: str) -> str:
        """The path of one slot."""
        return self.path if self.exact else f"{self.path}.{slot}" if self.path else slot


@dataclass
class Chosen:
    """A block's name, the choices made for it, and where each was made.

    name: As a person wrote it, with or without the family; None while nothing is said.
    at: Where the name was written, in the most general place.
    places: Every place that names this block; of ``auto`` and what it stands for, those that say ``auto``.
    special: Something was said of some layers only.
    misfits: Paths where what was said is neither a name nor a mapping, with it.
    """

    name: str | None = None
    at: str = ""
    choices: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    special: bool = False
    misfits: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = ()

    def refine(self, said: Any, path: str, special: bool = False) -> Chosen:
        """Take in what a more special level says. Another name drops the choices made for the old one."""
        if isinstance(said, Mapping):
            if "name" in said:
                self._call(said["name"], path)
            for key, value in said.items():
                if key != "name":
                    self.choices[key] = _merged(self.choices.get(key), value)
                    self.paths[key] = f"{path}.{key}"
            self.special |= special and bool(said)
        else:
            self._call("none" if said is None else said, path)
            self.special |= special
        return self

    def _call(self, name: Any, path: str) -> None:
        if not isinstance(name, str):
            self.misfits[path] = name
            return
        if self.name is None or name.rpartition("/")[2] != self.name.rpartition("/")[2]:
            if self.name is not None:
                self.choices.clear()
                self.paths.clear()
            self.at, self.places = path, ()
        self.name, self.places = name, (*self.places, path)

    @property
    def is_auto(self) -> bool:
        """The name was found by ``auto``; nobody wrote it."""
        return " (auto: " in self.at

    @property
    def short(self) -> str | None:
        """The name without its family."""
        return self.name and self.name.rpartition("/")[2]

    @property
    def spec(self) -> dict[str, Any]:
        """The block as a spec."""
        return {"name": self.name, **self.choices}

    def instead(self, name: str, at: str) -> Chosen:
        """The same choices for another block: what ``auto`` stands for."""
        return Chosen(name, at, dict(self.choices), dict(self.paths), self.special, places=self.places)


def _merged(old: Any, new: Any) -> Any:
    """A mapping that names no other block refines what was there."""
    if not isinstance(new, Mapping) or "name" in new or old is None:
        return new
    if isinstance(old, str):
        return {"name": old, **new}
    return {**old, **new} if isinstance(old, Mapping) else new
