"""One level of a config above another: defaults, then presets, then the words of the command line.

A level that names another block drops what lower levels chose for the old one; a level that names the same block,
or none, refines it. However a level is written (``attention: gqa``, ``attention: {name: gqa, n_kv_heads: 2}``),
the rule is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from registry.compose.words import Word, path_of
from registry.core import Entry, Registry
from registry.errors import ConfigError
from registry.stack import stacks_of
from registry.tables import LAYER_SLOTS, RUN_LISTS, SLOTS, STACK_SETTINGS, STACK_SLOTS, VARIANTS
from registry.values import guess

Config = dict[str, Any]
Path = tuple[str, ...]


class Levels:
    """A config that grows level by level. ``config``: what stands there so far, in plain containers."""

    def __init__(self, base: Mapping[str, Any], registry: Registry) -> None:
        self.registry = registry
        self.config: Config = {}
        self.always = frozenset(base)
        self.add(base)

    def add(self, level: Mapping[str, Any]) -> None:
        """Put a level above those that are there: what it chooses for the whole model first, then for single stacks.

        A key may be a whole path, as on the command line: ``decoder.n_layers``.
        """
        chosen = [(path_of(str(key)), value) for key, value in level.items()]
        for path, value in sorted(chosen, key=lambda one: (one[0] != "model", one[0] not in SLOTS, one[0].count("."))):
            self.put(tuple(path.split(".")), value)

    def put(self, path: Path, value: Any) -> None:
        """Put one value above what stands at ``path``."""
        if path == ("model",):
            self._leave_old_model(value)
        if value is None and len(path) == 2 and path[0] in RUN_LISTS:
            self._is_there(path)
        holder = self.config
        for depth, key in enumerate(path[:-1], 1):
            inside = holder.get(key)
            if isinstance(inside, str) and self.is_slot(path[:depth]):
                inside = {"name": inside}
            if not isinstance(inside, dict):
                inside = {}
            holder[key] = inside
            holder = inside
        holder[path[-1]] = self._above(holder.get(path[-1]), value, path)

    def word(self, word: Word) -> None:
        """Put what a word chooses above everything.

        Raises:
            ConfigError: It takes out what is not there.
        """
        path = tuple(word.path.split("."))
        if not word.deletes:
            self.put(path, word.value)
            return
        holder: Any = self.config
        for key in path[:-1]:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or path[-1] not in holder:
            raise ConfigError(
                f"{word.typed}: must take out what a preset or a default holds, but nothing is called {word.path!r}."
            )
        if word.path in self.always and word.path not in RUN_LISTS:
            raise ConfigError(f"{word.typed}: must not take out what every run has. Choose another: {word.path}=...")
        del holder[path[-1]]

    def sections(self) -> None:
        """Give each stack of the model its section, where no level has one."""
        for stack in self._stacks():
            whole = {**STACK_SETTINGS, "variants": copy.deepcopy(VARIANTS), "layers": {}}
            mine = self.config.get(stack)
            if mine is None:
                self.config[stack] = whole
            elif isinstance(mine, dict):
                self.config[stack] = {**whole, **mine}
                if isinstance(mine.get("variants"), dict):
                    self.config[stack]["variants"] = {**whole["variants"], **mine["variants"]}

    # One value above another ------------------------------------------------------------------------------------

    def _above(self, old: Any, new: Any, path: Path) -> Any:
        if path[-1] == "position" and isinstance(new, list | tuple):
            new = {"name": "sum", "parts": list(new)}
        if path[0] in RUN_LISTS and len(path) == 1:
            return self._members(old, new, path)
        if self.is_slot(path):
            new = {"name": "none"} if new is None and path[-1] != "model" else new
            new = {"name": new} if isinstance(new, str) else new
            old = {"name": old} if isinstance(old, str) else old
        if not isinstance(new, Mapping):
            return copy.deepcopy(new)
        old = old if isinstance(old, dict) else {}
        if "name" in new and path != ("model",) and not self._same(new["name"], old, path):
            old = {}
            self._drop_refinements(path)
        merged = dict(old)
        for key, value in new.items():
            merged[str(key)] = self._above(merged.get(str(key)), value, (*path, str(key)))
        return merged

    def _same(self, name: Any, old: Mapping[str, Any], path: Path) -> bool:
        """The block that a level names is the one that the choices below were made for."""
        before = old.get("name") or self._inherited(path)
        return before is None or _short(name) == _short(before)

    def _drop_refinements(self, path: Path) -> None:
        """Another block stands in a slot: drop the choices that more special places made for the old one."""
        slot = path[-1]
        stacks = {path[0]: self.config.get(path[0])} if len(path) == 2 else self.config if len(path) == 1 else {}
        for key, stack in stacks.items():
            if not isinstance(stack, dict) or key in SLOTS or not self.is_slot(path):
                continue
            places = [stack] if len(path) == 1 else []
            for several in ("variants", "layers"):
                places += [p for p in (stack.get(several) or {}).values() if isinstance(p, dict)]
            for place in places:
                if isinstance(place.get(slot), dict) and "name" not in place[slot]:
                    del place[slot]

    def _inherited(self, path: Path) -> Any:
        """The block that a slot takes from the places above it: a layer's from its stack, a stack's from the whole."""
        slot = path[-1]
        homes = [self.config.get(path[0]), self.config] if len(path) > 2 else [self.config] if len(path) == 2 else []
        for home in homes:
            found = home.get(slot) if isinstance(home, dict) else None
            name = found.get("name") if isinstance(found, dict) else found
            if name is not None:
                return name
        return None

    def _members(self, old: Any, new: Any, path: Path) -> Any:
        """A list names exactly the members there are; a mapping refines those that are there, by name."""
        if isinstance(new, Mapping) and "name" not in new:
            merged = dict(old) if isinstance(old, dict) else {}
            for key, value in new.items():
                inside = (*path, str(key))
                if value is None:
                    self._is_there(inside)
                merged[str(key)] = None if value is None else self._above(merged.get(str(key)), value, inside)
            return merged
        several = new if isinstance(new, list | tuple) else [] if new is None else [new]
        named = [{"name": v} if isinstance(v, str) else v for v in several]
        if not all(isinstance(v, Mapping) and isinstance(v.get("name"), str) for v in named):
            return copy.deepcopy(new)
        before = old if isinstance(old, dict) else {}
        return {
            v["name"]: {**(before.get(v["name"]) or {}), **{k: c for k, c in v.items() if k != "name"}} for v in named
        }

    def _is_there(self, path: Path) -> None:
        """Raises ``ConfigError`` where ``callbacks.sample=null`` takes out what no lower level has."""
        members = self.config.get(path[0])
        known = [name for name, choices in members.items() if choices is not None] if isinstance(members, dict) else []
        if path[1] not in known:
            raise ConfigError(
                f"{'.'.join(path)}: null must take out what is there, but {path[0]} has no {path[1]!r}"
                f"{guess(path[1], known)} There are: {', '.join(known) or 'none'}."
            )

    def is_slot(self, path: Path) -> bool:
        if len(path) == 1:
            return path[0] in SLOTS
        if len(path) == 2:
            return path[1] in STACK_SLOTS and path[0] not in SLOTS
        return len(path) == 4 and path[1] in ("variants", "layers") and path[3] in LAYER_SLOTS

    # Another model ----------------------------------------------------------------------------------------------

    def _stacks(self) -> list[str]:
        entry = self._model(self.config.get("model"))
        return stacks_of(entry) if entry else []

    def _model(self, said: Any) -> Entry | None:
        name = f"model/{_short(said.get('name') if isinstance(said, Mapping) else said)}"
        return self.registry[name] if name in self.registry else None  # noqa: SIM401  (a registry is no dict)

    def _leave_old_model(self, said: Any) -> None:
        """Drop what lower levels chose for stacks and choices that another model does not have."""
        old, new = self._model(self.config.get("model")), self._model(said)
        if old is None or new is None or old is new:
            return
        for stack in set(stacks_of(old)) - set(stacks_of(new)):
            self.config.pop(stack, None)
        facts = self.config["model"]
        if isinstance(facts, dict):
            self.config["model"] = {k: v for k, v in facts.items() if k in new.choices or k not in old.choices}


def words_above(levels: Levels, words: Iterable[Word]) -> list[str]:
    """Put words above all levels, the general before the special; a line for each that does not fit."""
    problems = []
    ordered = sorted(words, key=lambda word: word.path.count("."))
    set_whole = {w.path: w for w in ordered if not w.deletes and not isinstance(w.value, Mapping)}
    for word in ordered:
        beside = (_contradiction(word, path, value, levels) for path, value in _prefixes(word.path, set_whole))
        try:
            if problem := next(filter(None, beside), None):
                raise ConfigError(problem)
            levels.word(word)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def _contradiction(word: Word, path: str, value: Word, levels: Levels) -> str | None:
    """Why a word can not stand beside one that chooses everything at a path above its own."""
    if path in RUN_LISTS:
        if word.value is None and not word.deletes:
            return f"{word.path}: must not be taken out beside {value.typed}, which names all there are."
    elif not (isinstance(value.value, str) and levels.is_slot(tuple(path.split(".")))):
        return f"{word.path}: must not be chosen beside {value.typed}, which has no such part."
    return None


def _prefixes(path: str, words: Mapping[str, Word]) -> list[tuple[str, Word]]:
    parts = path.split(".")
    heads = [".".join(parts[:n]) for n in range(1, len(parts))]
    return [(head, words[head]) for head in heads if head in words]


def _short(name: Any) -> str:
    return str(name).rpartition("/")[2]
