"""From what a person chose, in general and in particular, to one spec in which everything is written out.

    global    attention=gqa                                  every stack, every layer
    stack     decoder.attention.n_heads=4
    variant   decoder.variants.local.mask=window             in decoder.pattern=[local,local,global]
    layer     decoder.layers.3.ffn=moe

A level that names another block drops what was chosen for the old one; a level that names none refines it.
``params.<block>.<choice>`` is a block's default, wherever it is used. ``auto`` asks the blocks what they prefer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from registry.chosen import Chosen, Level
from registry.core import REGISTRY, Completion, Entry, Registry
from registry.stack import OneStack, nothing_to_read, reads, stacks_of
from registry.tables import (
    BLOCK_SLOTS,
    FALLBACK,
    LAYER_SLOTS,
    MODEL_SLOTS,
    RUN_LISTS,
    RUN_SLOTS,
    SEEDS,
    SETTINGS,
    STACK_SETTINGS,
)
from registry.values import MisfitError, fit, guess


class Resolved(NamedTuple):
    """A complete spec, and how it came about.

    spec: Everything written out. origins: For paths in it, where a person would change what is there.
    taken: For paths in the config, what the spec holds of a choice made there: a value for each block that took it.
    effective: Paths in the config whose slot decided something, also where ``auto`` or ``none`` stands in it.
    """

    spec: dict[str, Any]
    origins: dict[str, str]
    taken: dict[str, list[Any]]
    effective: frozenset[str]


def resolve(config: Mapping[str, Any], registry: Registry = REGISTRY) -> dict[str, Any]:
    """The complete spec of a run, or of a model alone, from a composed config.

    Raises:
        ConfigError: With a line for everything that is wrong, each beginning with the path in the config.
    """
    return trace(config, registry).spec


def trace(config: Mapping[str, Any], registry: Registry = REGISTRY, known: Sequence[str] = ()) -> Resolved:
    """``resolve``, and where everything comes from. ``known``: more settings that are passed on as they are.

    Raises:
        ConfigError: As ``resolve``.
    """
    return Resolution(config, registry, known).run()


class Resolution:
    """One config on its way to a spec; complaints gather in ``completion``."""

    def __init__(self, config: Mapping[str, Any], registry: Registry, known: Sequence[str]) -> None:
        self.config = config
        self.registry = registry
        self.known = {*BLOCK_SLOTS, *SETTINGS, "model", *known}
        self.completion = Completion(registry)
        self.complain = self.completion.complain
        self.origins: dict[str, str] = {}
        self.effective: set[str] = set()
        self._made: dict[int, tuple[dict[str, Any], Chosen]] = {}
        self.homes: dict[str, list[str]] = {}

    def run(self) -> Resolved:
        refuse_targets(self.config, self.complain)
        self.completion.params = self._params()
        spec = {k: self._setting(k, v) for k, v in self.config.items() if self._is_setting(k)}
        model = self.chosen("model", [Level("", self.config)])
        entry = self.find(model, ("model",), "model")
        if entry is not None:
            spec["model"] = self._model(entry, model)
            spec |= self._run_blocks(entry)
            self._check_lengths(spec)
        self._check_globals(entry)
        self._check_keys(entry)
        self.completion.judge()
        return Resolved(spec, self.origins, self._taken(spec), frozenset(self.effective))

    def _taken(self, spec: Any) -> dict[str, list[Any]]:
        """What the spec holds of each choice, by the path at which it was made."""
        taken: dict[str, list[Any]] = {}

        def visit(value: Any) -> None:
            if isinstance(value, Mapping):
                _, chosen = self._made.get(id(value), (None, None))
                if chosen is not None:
                    for place in () if chosen.is_auto else chosen.places:
                        taken.setdefault(place, []).append(value["name"])
                    for key, path in chosen.paths.items():
                        if key in value:
                            taken.setdefault(path, []).append(value[key])
            for inside in value.values() if isinstance(value, Mapping) else value:
                if isinstance(inside, Mapping | list | tuple):
                    visit(inside)

        visit(spec)
        return taken

    # The model --------------------------------------------------------------------------------------------------

    def _model(self, entry: Entry, model: Chosen) -> dict[str, Any] | None:
        given: dict[str, Any] = {}
        stacks = stacks_of(entry)
        for key in stacks:
            self.refuse_choice(model, key, f"{key} is a section of its own: say {key}.<choice>")
            given[key] = OneStack(self, entry, key).spec()
        for key, choice in entry.choices.items():
            if key in MODEL_SLOTS and choice.families:
                part = self.chosen(key, [Level("", self.config)])
                if key in model.choices:
                    part.refine(model.choices[key], f"model.{key}")
                if part.name in (None, "auto"):
                    part = part.instead(self.preferred(key, [entry]) or choice.default, part.at or f"model.{key}")
                given[key] = self.block(part, choice.families, key)
                self.origins[f"model.{key}"] = part.at
                self.effective.update(part.places)
        spec = self.block(model, ("model",), "model", given)
        self.origins["model"] = "model"
        return spec

    def refuse_choice(self, chosen: Chosen, key: str, why: str) -> None:
        if key in chosen.choices:
            self.complain(f"{chosen.paths[key]}: {why}.")

    # What trains it ---------------------------------------------------------------------------------------------

    def _run_blocks(self, model: Entry) -> dict[str, Any]:
        blocks: dict[str, Any] = {}
        asked = [model]
        for key, families in RUN_SLOTS.items():
            if self.config.get(key) is None:
                continue
            chosen = self.chosen(key, [Level("", self.config)])
            if chosen.name == "auto":
                preferred = self.preferred(key, asked)
                if preferred is None:
                    who = " nor ".join(e.short for e in asked)
                    self.complain(f"{key}: auto must mean something, but neither {who} prefers one. Choose one.")
                    continue
                chosen = chosen.instead(preferred, f"{key} (auto: {preferred})")
            entry = self.find(chosen, families, key)
            if entry is not None:
                blocks[key] = self.block(chosen, families, key)
                self.origins[key] = chosen.at
                self.effective.update(chosen.places)
                asked.append(entry)
        for key, families in RUN_LISTS.items():
            if key in self.config:
                chosen_list = list(self._listed(key, self.config[key]))
                made = [self.block(c, families, key) for c in chosen_list]
                self.origins |= {f"{key}.{i}": c.at for i, c in enumerate(chosen_list)}
                blocks[key] = [one for one in made if one is not None]
        return blocks

    def _check_lengths(self, spec: Mapping[str, Any]) -> None:
        """Data must not be cut longer than the model can take."""
        length = (spec.get("data") or {}).get("length")
        most = (spec.get("model") or {}).get("max_length")
        if isinstance(length, int) and isinstance(most, int) and length > most:
            self.complain(f"data.length: must be at most model.max_length, which is {most}, but got {length}.")

    def _listed(self, key: str, said: Any) -> Iterator[Chosen]:
        """A list of names or specs, or a mapping from names to choices (null takes one out)."""
        if isinstance(said, Mapping) and "name" not in said:
            for name, choices in said.items():
                if choices is not None:
                    yield Chosen().refine({"name": name}, f"{key}.{name}").refine(choices, f"{key}.{name}")
            return
        several = said if isinstance(said, list | tuple) else [] if said is None else [said]
        for i, one in enumerate(several):
            yield Chosen().refine(one, f"{key}.{i}")

    def preferred(self, slot: str, blocks: Sequence[Entry]) -> str | None:
        """What the blocks prefer in a slot, the first that prefers anything; by what the data gives, if it says so."""
        gives = next(
            (e.constructor.gives for e in blocks if e.family == "data" and hasattr(e.constructor, "gives")), ""
        )
        for entry in blocks:
            prefers = getattr(entry.constructor, "prefers", {}).get(slot)
            if isinstance(prefers, Mapping):
                prefers = prefers.get(gives)
            if prefers is not None:
                return str(prefers)
        return None

    # Names and choices ------------------------------------------------------------------------------------------

    def chosen(self, slot: str, levels: Sequence[Level]) -> Chosen:
        chosen = Chosen()
        if slot in FALLBACK:
            chosen.refine(FALLBACK[slot], slot)
        for level in levels:
            if slot in level.made:
                said = level.made[slot]
                if slot == "position" and isinstance(said, list | tuple):
                    said = {"name": "sum", "parts": list(said)}
                chosen.refine(said, level.where(slot), level.special)
        for path, value in chosen.misfits.items():
            if isinstance(value, list | tuple):
                hint = " A pattern says which layer has which." if slot in LAYER_SLOTS else ""
                self.complain(f"{path}: must be one block, but got a list: {value}.{hint}")
            else:
                self.complain(f"{path}: must be a name, or a mapping with the choices of a block, but got {value!r}.")
        return chosen

    def find(self, chosen: Chosen, families: tuple[str, ...], slot: str) -> Entry | None:
        no_block = chosen.name == "none" and not any(f"{family}/none" in self.registry for family in families)
        if chosen.name is None or no_block:
            if not chosen.misfits:
                known = ", ".join(self.registry[n].short for n in self.registry.names(*families)) or "none"
                where = chosen.at if no_block else slot
                self.complain(f"{where}: a block must be chosen, but none is. There are: {known}.")
            return None
        return self.completion.find(chosen.name, families, chosen.at)

    def block(
        self, chosen: Chosen, families: tuple[str, ...], slot: str, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The block written out."""
        entry = self.find(chosen, families, slot)
        if entry is None:
            return None
        for key in entry.choices:
            home = f"{slot}.{key}"
            if home not in self.homes.setdefault(key, []):
                self.homes[key].append(home)
        made = self.completion.spec(chosen.spec, families, chosen.at, given, {**chosen.paths, "name": chosen.at})
        if made is not None:
            self._made[id(made)] = (made, chosen)  # the spec is kept alive, so that no other gets its id
        return made

    def _params(self) -> dict[str, dict[str, tuple[Any, str]]]:
        """``params`` with the place of each, and ``backend`` for every block that has the choice."""
        params: dict[str, dict[str, tuple[Any, str]]] = {}
        for block, choices in (self._setting("params", self.config.get("params") or {}) or {}).items():
            entries = [self.registry[n] for n in self.registry.names() if block in (n, n.partition("/")[2])]
            if not entries:
                short = {n.partition("/")[2] for n in self.registry.names()}
                self.complain(f"params.{block}: no block is named {block!r}{guess(block, sorted(short))}")
            elif not isinstance(choices, Mapping):
                self.complain(f"params.{block}: must be a mapping from choices to values, but got {choices!r}.")
            else:
                for key, value in choices.items():
                    at = f"params.{block}.{key}"
                    if any(key in e.choices for e in entries):
                        params.setdefault(block, {})[key] = (value, at)
                    else:
                        self.complain(self.completion.unknown_choice(entries[0], key, at))
        backend = self.config.get("backend", "auto")
        if backend not in ("auto", None):
            params["*"] = {"backend": (backend, "backend")}
        return params

    # Settings, and keys that mean nothing -----------------------------------------------------------------------

    def _is_setting(self, key: str) -> bool:
        return key in self.known and key not in BLOCK_SLOTS and key not in ("model", "params", "backend")

    def _setting(self, key: str, value: Any) -> Any:
        try:
            if key == "plugins" and isinstance(value, str):
                raise MisfitError(f"must be a list, as in plugins=[{value}], but got {value!r}.")
            if value == "":
                raise MisfitError("must not be empty; leave it out, or say null, but got ''.")
            setting = fit(value, SETTINGS.get(key, Any), lambda v, _: v)
            if key == "seed" and not 0 <= setting < SEEDS:
                raise MisfitError(f"must be a whole number from 0 to {SEEDS - 1}, but got {setting}.")
            return setting
        except MisfitError as misfit:
            self.complain(f"{key}: {misfit}")
            return None

    def _check_globals(self, model: Entry | None) -> None:
        """A default that no layer takes up may still be misspelt."""
        whole = Level("", self.config)
        for slot in ("attention", "cross_attention", "mixer", "norm", "ffn", "mask"):
            chosen = self.chosen(slot, [whole])
            if chosen.name not in (None, "auto") and not (slot == "mixer" and chosen.name == "attention"):
                self.block(chosen, LAYER_SLOTS[slot], slot)
        cross = self.chosen("cross_attention", [whole])
        if model and cross.name not in ("auto", "none", None) and not any(reads(model, s) for s in stacks_of(model)):
            self.complain(nothing_to_read("cross_attention", model, self.registry))

    def _check_keys(self, model: Entry | None) -> None:
        stacks = stacks_of(model) if model else []
        for stack in stacks:
            for key in STACK_SETTINGS:
                self.homes.setdefault(key, []).append(f"{stack}.{key}")
        for key in self.config.get("trainer") or {}:
            self.homes.setdefault(key, []).append(f"trainer.{key}")
        for key in self.config:
            if key in self.known or key in stacks or self.config[key] in (None, {}):
                continue
            owners = [e.short for e in self._models() if key in stacks_of(e)]
            if owners and model:
                self.complain(
                    f"{key}: {model.short} must not be given one, but it is: it has {' and '.join(stacks)}. "
                    f"Models with that stack: {', '.join(owners)}."
                )
            elif not owners:
                fills = [s for s, families in BLOCK_SLOTS.items() if key in families]
                homes = [h for h in self.homes.get(key, []) if h not in self.completion.problems]
                near = (
                    f". Did you mean {' or '.join(map(repr, homes[:3]))}?" if homes else guess(key, sorted(self.known))
                )
                if fills:
                    near = f": blocks of this family go into {' or '.join(fills)}."
                self.complain(f"{key}: nothing in a config is called {key!r}{near}")

    def _models(self) -> list[Entry]:
        return [self.registry[n] for n in self.registry.names("model")]


def refuse_targets(config: Any, complain: Callable[[str], object], path: str = "") -> None:
    """A config names blocks, never Python objects."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            at = f"{path}.{key}" if path else str(key)
            if key == "_target_":
                complain(f"{at}: a config must name registered blocks, but this names a Python object: {value!r}.")
            refuse_targets(value, complain, at)
    elif isinstance(config, list | tuple):
        for i, value in enumerate(config):
            refuse_targets(value, complain, f"{path}.{i}")
