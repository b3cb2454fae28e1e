"""From what a person chose, in general and in particular, to one spec in which everything is written out.

    global    attention=gqa                                  every stack, every layer
    stack     decoder.attention.n_heads=4
    variant   decoder.variants.local.mask=window             in decoder.pattern=[local,local,global]
    layer     decoder.layers.3.ffn=moe

A level that names another block drops what was chosen for the old one; a level that names none refines it.
``params.<block>.<choice>`` is a block's default, wherever it is used. ``auto`` asks the blocks what they prefer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from registry.chosen import Chosen, Level
from registry.core import MIXERS, REGISTRY, Completion, Entry, Registry
from registry.errors import ConfigError
from registry.values import MisfitError, fit, guess

LAYER_SLOTS: dict[str, tuple[str, ...]] = {
    "mixer": MIXERS,
    "attention": ("attention",),
    "cross_attention": ("attention",),
    "position": ("position",),
    "mask": ("mask",),
    "norm": ("norm",),
    "ffn": ("ffn",),
    "residual": ("residual",),
    "layer": ("layer",),
}
"""What each layer of a stack is made of, and the families that fill it."""

STACK_SLOTS = {**LAYER_SLOTS, "stack": ("stack",)}
"""What a stack is made of."""

STACK_SETTINGS: dict[str, Any] = {"n_layers": 4, "pattern": None, "variants": {}, "layers": {}}
"""What else a stack's section holds, and what it is when nobody says."""

VARIANTS: dict[str, Any] = {"local": {"mask": {"name": "window"}}, "global": {}}
"""Variants that every stack has from the start."""

MODEL_SLOTS: dict[str, tuple[str, ...]] = {"embedding": ("embedding",), "head": ("head",), "init": ("init",)}
"""What a model has outside its stacks."""

RUN_SLOTS: dict[str, tuple[str, ...]] = {
    "data": ("data",),
    "tokenizer": ("tokenizer",),
    "objective": ("objective",),
    "optimizer": ("optimizer",),
    "schedule": ("schedule",),
}
"""What trains a model."""

RUN_LISTS: dict[str, tuple[str, ...]] = {"callbacks": ("callback",), "logger": ("logger",)}
"""Of these a run has any number."""

SETTINGS: dict[str, Any] = {
    "seed": int,
    "name": str | None,
    "plugins": list[str],
    "params": dict[str, Any],
    "trainer": dict[str, Any],
    "compile": bool,
    "backend": str,
    "dry_run": bool,
    "ckpt_path": str | None,
    "rerun": str | None,
}
"""Plain values of a run, and their types."""

FALLBACK = {
    "mixer": "attention",
    "cross_attention": "auto",
    "position": "auto",
    "mask": "auto",
    "layer": "sequential",
    "stack": "plain",
}
"""What fills a slot of which nobody, not even a preset, says anything."""

CROSS = "mha"
"""What ``cross_attention=auto`` means: attention that can read any memory."""

CROSS_INHERITS = ("n_heads", "head_dim", "dropout")
"""Choices made for the attention slot that ``cross_attention=auto`` takes over: they have to fit the same width."""


class Resolved(NamedTuple):
    """spec: Everything written out. origins: For paths in it, where a person would change what is there."""

    spec: dict[str, Any]
    origins: dict[str, str]


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
    return _Resolution(config, registry, known).run()


class _Resolution:
    """One config on its way to a spec; complaints gather in ``completion``."""

    def __init__(self, config: Mapping[str, Any], registry: Registry, known: Sequence[str]) -> None:
        self.config = config
        self.registry = registry
        self.known = {*STACK_SLOTS, *MODEL_SLOTS, *RUN_SLOTS, *RUN_LISTS, *SETTINGS, "model", *known}
        self.completion = Completion(registry)
        self.complain = self.completion.complain
        self.origins: dict[str, str] = {}
        self.homes: dict[str, list[str]] = {}

    def run(self) -> Resolved:
        refuse_targets(self.config, self.complain)
        self.completion.params = self._params()
        spec = {k: self._setting(k, v) for k, v in self.config.items() if self._is_setting(k)}
        model = self._chosen("model", [Level("", self.config)])
        entry = self._find(model, ("model",), "model")
        if entry is not None:
            spec["model"] = self._model(entry, model)
            spec |= self._run_blocks(entry)
            self._check_lengths(spec)
        self._check_globals(entry)
        self._check_keys(entry)
        self.completion.judge()
        return Resolved(spec, self.origins)

    # The model --------------------------------------------------------------------------------------------------

    def _model(self, entry: Entry, model: Chosen) -> dict[str, Any] | None:
        given: dict[str, Any] = {}
        stacks = stacks_of(entry)
        for key in stacks:
            self._refuse_choice(model, key, f"{key} is a section of its own: say {key}.<choice>")
            given[key] = _Stack(self, entry, key).spec()
        for key, choice in entry.choices.items():
            if key in MODEL_SLOTS and choice.families:
                part = self._chosen(key, [Level("", self.config)])
                if key in model.choices:
                    part.refine(model.choices[key], f"model.{key}")
                if part.name in (None, "auto"):
                    part = part.instead(self._preferred(key, [entry]) or choice.default, part.at or f"model.{key}")
                given[key] = self._block(part, choice.families, key)
                self.origins[f"model.{key}"] = part.at
        spec = self._block(model, ("model",), "model", given)
        self.origins["model"] = "model"
        return spec

    def _refuse_choice(self, chosen: Chosen, key: str, why: str) -> None:
        if key in chosen.choices:
            self.complain(f"{chosen.paths[key]}: {why}.")

    # What trains it ---------------------------------------------------------------------------------------------

    def _run_blocks(self, model: Entry) -> dict[str, Any]:
        blocks: dict[str, Any] = {}
        asked = [model]
        for key, families in RUN_SLOTS.items():
            if self.config.get(key) is None:
                continue
            chosen = self._chosen(key, [Level("", self.config)])
            if chosen.name == "auto":
                preferred = self._preferred(key, asked)
                if preferred is None:
                    who = " nor ".join(e.short for e in asked)
                    self.complain(f"{key}: auto must mean something, but neither {who} prefers one. Choose one.")
                    continue
                chosen = chosen.instead(preferred, f"{key} (auto: {preferred})")
            entry = self._find(chosen, families, key)
            if entry is not None:
                blocks[key] = self._block(chosen, families, key)
                self.origins[key] = chosen.at
                asked.append(entry)
        for key, families in RUN_LISTS.items():
            if key in self.config:
                chosen_list = list(self._listed(key, self.config[key]))
                made = [self._block(c, families, key) for c in chosen_list]
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

    def _preferred(self, slot: str, blocks: Sequence[Entry]) -> str | None:
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

    def _chosen(self, slot: str, levels: Sequence[Level]) -> Chosen:
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
            self.complain(f"{path}: must be a name, or a mapping with the choices of a block, but got {value!r}.")
        return chosen

    def _find(self, chosen: Chosen, families: tuple[str, ...], slot: str) -> Entry | None:
        if chosen.name is None:
            if not chosen.misfits:
                known = ", ".join(self.registry[n].short for n in self.registry.names(*families)) or "none"
                self.complain(f"{slot}: a block must be chosen, but none is. There are: {known}.")
            return None
        return self.completion.find(chosen.name, families, chosen.at)

    def _block(
        self, chosen: Chosen, families: tuple[str, ...], slot: str, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The block written out."""
        entry = self._find(chosen, families, slot)
        if entry is None:
            return None
        for key in entry.choices:
            home = f"{slot}.{key}"
            if home not in self.homes.setdefault(key, []):
                self.homes[key].append(home)
        return self.completion.spec(chosen.spec, families, chosen.at, given, {**chosen.paths, "name": chosen.at})

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
        blocks = (STACK_SLOTS, MODEL_SLOTS, RUN_SLOTS, RUN_LISTS, ("model", "params", "backend"))
        return key in self.known and not any(key in group for group in blocks)

    def _setting(self, key: str, value: Any) -> Any:
        try:
            return fit(value, SETTINGS.get(key, Any), lambda v, _: v)
        except MisfitError as misfit:
            self.complain(f"{key}: {misfit}")
            return None

    def _check_globals(self, model: Entry | None) -> None:
        """A default that no layer takes up may still be misspelt."""
        whole = Level("", self.config)
        for slot in ("attention", "cross_attention", "mixer", "norm", "ffn", "mask"):
            chosen = self._chosen(slot, [whole])
            if chosen.name not in (None, "auto") and not (slot == "mixer" and chosen.name == "attention"):
                self._block(chosen, LAYER_SLOTS[slot], slot)
        cross = self._chosen("cross_attention", [whole])
        if model and cross.name not in ("auto", "none", None) and not any(_reads(model, s) for s in stacks_of(model)):
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
                homes = [h for h in self.homes.get(key, []) if h not in self.completion.problems]
                near = (
                    f". Did you mean {' or '.join(map(repr, homes[:3]))}?" if homes else guess(key, sorted(self.known))
                )
                self.complain(f"{key}: nothing in a config is called {key!r}{near}")

    def _models(self) -> list[Entry]:
        return [self.registry[n] for n in self.registry.names("model")]


class _Stack:
    """One stack of the model on its way to a spec."""

    def __init__(self, resolution: _Resolution, model: Entry, name: str) -> None:
        self.r, self.model, self.name = resolution, model, name
        self.complain = resolution.complain
        self.causal = is_causal(name)
        self.reads = _reads(model, name)
        self.section = self._section()
        self.general = [Level("", resolution.config), Level(name, self.section)]
        self.foot: dict[str, dict[str, Any]] = {}
        self.took_attention = False

    def spec(self) -> dict[str, Any] | None:
        whole = self.general
        stack = self.r._chosen("stack", whole)
        layers = []
        self._read_foot(self.r._chosen("position", whole))
        for i, special in enumerate(self._special_levels()):
            layers.append(self._layer(i, [*whole, *special]))
        said = self.section.get("attention")
        if said and not self.took_attention:
            self.complain(
                f"{self.name}.attention: some layer must use it, but every mixer of {self.name} is another. "
                f"Say {self.name}.mixer=attention, or leave it out."
            )
        norm = self.r._chosen("norm", whole)
        path = f"model.{self.name}"
        self.r.origins |= {path: stack.at, f"{path}.norm": norm.at}
        for i, at in enumerate(self.foot):
            self.r.origins[f"{path}.position.{i}"] = at
        given = {
            "layers": layers,
            "position": list(self.foot.values()),
            "norm": self.r._block(norm, ("norm",), "norm"),
        }
        entry = self.r._find(stack, ("stack",), "stack")
        for key in given:
            self.r._refuse_choice(stack, key, f"it is filled from the slot {key.removesuffix('s')}: choose it there")
        return self.r._block(
            stack, ("stack",), "stack", {k: v for k, v in given.items() if entry and k in entry.choices}
        )

    # Which layer is what ----------------------------------------------------------------------------------------

    def _section(self) -> Mapping[str, Any]:
        section = self.r.config.get(self.name)
        if section is None:
            return {}
        if not isinstance(section, Mapping):
            self.complain(f"{self.name}: must be a mapping, but got {section!r}.")
            return {}
        known = [*STACK_SETTINGS, *STACK_SLOTS]
        for key in section:
            if key not in known:
                homes = [f"{h}" for h in self.r.homes.get(key, [])]
                self.complain(
                    f"{self.name}.{key}: a stack has no {key!r}{guess(key, known)} It has: {', '.join(known)}."
                    + (f" Perhaps {homes[0]!r} is meant." if homes else "")
                )
        return {k: v for k, v in section.items() if k in known}

    def _special_levels(self) -> list[list[Level]]:
        """For each layer, what is said of it and not of all: its variant's level and its own."""
        n_layers = self._n_layers()
        levels: list[list[Level]] = [[] for _ in range(n_layers)]
        pattern = self._pattern()
        if pattern:
            for i, mine in enumerate(levels):
                mine.append(pattern[i % len(pattern)])
        for key, said in self._mapping("layers").items():
            path = f"{self.name}.layers.{key}"
            if not re.fullmatch(r"\d+", str(key)) or int(key) >= n_layers:
                last = f"0 to {n_layers - 1}" if n_layers > 1 else "only 0"
                self.complain(f"{path}: must be a layer of {self.name}, {last}, but got {key!r}.")
            elif isinstance(said, str):
                levels[int(key)] += [level for level in [self._named(said, path)] if level]
            else:
                levels[int(key)].append(Level(path, self._slots_of(said, path), special=True))
        return levels

    def _n_layers(self) -> int:
        said = self.section.get("n_layers", STACK_SETTINGS["n_layers"])
        try:
            n_layers: int = fit(said, int, lambda v, _: v)
        except MisfitError as misfit:
            self.complain(f"{self.name}.n_layers: {misfit}")
            return 1
        if n_layers < 1:
            self.complain(f"{self.name}.n_layers: must be at least 1, but got {n_layers}.")
        return max(n_layers, 1)

    def _pattern(self) -> list[Level]:
        """One turn of the pattern, a level for each layer in it."""
        path, said = f"{self.name}.pattern", self.section.get("pattern")
        words = [said] if isinstance(said, str) else said or []
        if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
            self.complain(f"{path}: must be a list of variants or blocks, but got {said!r}.")
            words = []
        turn, used = [], {str(v) for v in self._mapping("layers").values()}
        for word in words:
            name, _, times = word.partition("*")
            used.add(name)
            if times and not re.fullmatch(r"[1-9]\d*", times):
                self.complain(
                    f"{path}: a repeat must be a whole number behind a star, as in local*5, but got {word!r}."
                )
                continue
            level = self._named(name.strip(), path)
            turn += [level] * int(times or 1) if level else []
        for variant, levels in self._variants().items():
            if variant not in used and levels != VARIANTS.get(variant):
                self.complain(
                    f"{self.name}.variants.{variant}: some layer must be of this variant, but none is. "
                    f"Deal it out with {path}=[{variant},...]."
                )
        return turn

    def _variants(self) -> Mapping[str, Any]:
        return {**VARIANTS, **self._mapping("variants")}

    def _named(self, name: str, path: str) -> Level | None:
        """The level that a word in a pattern stands for: a variant, or one block in the slot it belongs to."""
        variants = self._variants()
        if name in variants:
            where = f"{self.name}.variants.{name}"
            return Level(where, self._slots_of(variants[name], where), special=True)
        slots = [s for s in LAYER_SLOTS if s not in ("attention", "cross_attention") and self._fills(name, s)]
        if len(slots) == 1:
            return Level(path, {slots[0]: name}, exact=True, special=True)
        if slots:
            many = " and ".join(f"a {s}" for s in slots)
            self.complain(f"{path}: must say which {name!r}, which is {many}. Name a variant that chooses it.")
            return None
        mixers = [n.partition("/")[2] for n in self.r.registry.names(*MIXERS)]
        self.complain(
            f"{path}: no variant and no block is named {name!r}{guess(name, [*variants, *mixers])} "
            f"Variants: {', '.join(variants)}."
        )
        return None

    def _fills(self, name: str, slot: str) -> bool:
        if slot == "mixer" and name == "attention":
            return True
        return any(f"{family}/{name.rpartition('/')[2]}" in self.r.registry for family in LAYER_SLOTS[slot])

    def _mapping(self, key: str) -> Mapping[str, Any]:
        said = self.section.get(key) or {}
        if not isinstance(said, Mapping):
            self.complain(f"{self.name}.{key}: must be a mapping, but got {said!r}.")
            return {}
        return said

    def _slots_of(self, said: Any, path: str) -> Mapping[str, Any]:
        if said is None:
            return {}
        if not isinstance(said, Mapping):
            self.complain(f"{path}: must be a mapping from slots to blocks, but got {said!r}.")
            return {}
        for key in said:
            if key not in LAYER_SLOTS:
                self.complain(
                    f"{path}.{key}: a layer has no slot {key!r}{guess(key, LAYER_SLOTS)} "
                    f"It has: {', '.join(LAYER_SLOTS)}."
                )
        return {k: v for k, v in said.items() if k in LAYER_SLOTS}

    # One layer --------------------------------------------------------------------------------------------------

    def _layer(self, index: int, levels: list[Level]) -> dict[str, Any] | None:
        here = f"model.{self.name}.layers.{index}"
        mixer = self._mixer(levels)
        entry = self.r._find(mixer, MIXERS, "mixer")
        parts = {
            "mixer": (mixer, self._filled(mixer, MIXERS, "mixer", levels)),
            "mask": self._mask(levels),
            "position": self._position(levels, mixer, entry),
            "cross_attention": self._cross_attention(levels, index),
        }
        for slot in ("ffn", "residual", "norm"):
            chosen = self.r._chosen(slot, levels)
            parts[slot] = (chosen, self._filled(chosen, LAYER_SLOTS[slot], slot, levels))
        for slot, (chosen, _) in parts.items():
            self._remember(f"{here}.{slot}", chosen)
        self._remember(f"{here}.residual.norm", parts["norm"][0])

        layer = self.r._chosen("layer", levels)
        self._remember(here, layer)
        kind = self.r._find(layer, ("layer",), "layer")
        if kind is None:
            return None
        for slot in parts:
            self.r._refuse_choice(layer, slot, f"it is filled from the slot {slot}: say {slot}=...")
        for slot in ("position", "cross_attention"):
            if parts[slot][1] is not None and slot not in kind.choices:
                self.complain(f"{layer.at}: {kind.short} must have a slot for the {slot}, but it has none.")
        given = {slot: spec for slot, (_, spec) in parts.items() if slot in kind.choices}
        return self.r._block(layer, ("layer",), "layer", given)

    def _mixer(self, levels: list[Level]) -> Chosen:
        mixer = self.r._chosen("mixer", levels)
        if mixer.name != "attention":
            return mixer
        self.took_attention = True
        attention = self.r._chosen("attention", levels)
        attention.choices |= mixer.choices
        attention.paths |= mixer.paths
        return attention

    def _filled(
        self, chosen: Chosen, families: tuple[str, ...], slot: str, levels: list[Level]
    ) -> dict[str, Any] | None:
        """The block written out; a residual rule's norm (and what a block has no default for) comes from its slot."""
        entry = self.r._find(chosen, families, slot)
        if entry is None:
            return None
        given = {}
        for key, choice in entry.choices.items():
            if key in ("norm", "ffn") and choice.families == LAYER_SLOTS[key] and key != slot:
                if slot != "residual" and choice.default != "???":
                    continue
                part = self.r._chosen(key, levels)
                if key in chosen.choices:
                    part.refine(chosen.choices[key], chosen.paths[key])
                given[key] = self.r._block(part, choice.families, key)
        return self.r._block(chosen, families, slot, given)

    def _mask(self, levels: list[Level]) -> tuple[Chosen, dict[str, Any] | None]:
        chosen = self.r._chosen("mask", levels)
        if chosen.name == "auto":
            plain = "causal" if self.causal else "full"
            chosen = chosen.instead(plain, f"{chosen.at} (auto: {plain})")
        before = len(self.r.completion.problems)
        spec = self.r._block(chosen, ("mask",), "mask")
        if spec is not None and len(self.r.completion.problems) == before:
            try:  # a policy is a rule, not a module: making one costs nothing
                self.r.registry.factory(spec)(self.causal)
            except ConfigError as refusal:
                self.complain(f"{chosen.at}: {str(refusal).partition(': ')[2]}")
        return chosen, spec

    def _cross_attention(self, levels: list[Level], index: int) -> tuple[Chosen, dict[str, Any] | None]:
        chosen = self.r._chosen("cross_attention", levels)
        if not self.reads:
            own = self.r._chosen("cross_attention", levels[1:])
            if own.name not in (None, "auto", "none"):
                self.complain(nothing_to_read(own.at, self.model, self.r.registry))
            return chosen, None
        if chosen.name == "none":
            return chosen, None
        if chosen.name == "auto":
            chosen = chosen.instead(CROSS, f"{chosen.at} (auto: {CROSS})")
            entry = self.r._find(chosen, ("attention",), "cross_attention")
            said = self.r._chosen("attention", levels)
            for key in CROSS_INHERITS:
                if entry and key in entry.choices and key in said.choices:
                    chosen.choices.setdefault(key, said.choices[key])
                    chosen.paths.setdefault(key, said.paths[key])
        return chosen, self._filled(chosen, ("attention",), "cross_attention", levels)

    # Where order comes from -------------------------------------------------------------------------------------

    def _read_foot(self, chosen: Chosen) -> None:
        """What the stack's position has to say at its foot."""
        if chosen.name != "auto":
            for part in self._parts(chosen):
                entry = self.r._find(part, ("position",), "position")
                if entry and not acts_in_attention(entry):
                    self._stand_at_the_foot(part)

    def _stand_at_the_foot(self, part: Chosen) -> None:
        spec = self.r._block(part, ("position",), "position")
        if spec is not None and spec not in self.foot.values():
            self.foot[part.at] = spec

    def _position(
        self, levels: list[Level], mixer: Chosen, entry: Entry | None
    ) -> tuple[Chosen, dict[str, Any] | None]:
        """What a layer's attention is told about order; what acts at the foot is not the layer's to choose."""
        chosen = self.r._chosen("position", levels)
        auto = chosen.name == "auto"
        if auto:
            if entry is None:
                return chosen, None
            preferred = self.r._preferred("position", [entry]) or "none"
            chosen = chosen.instead(preferred, f"{chosen.at} (auto: {preferred})")
        inside = []
        for part in self._parts(chosen):
            kind = self.r._find(part, ("position",), "position")
            if kind is None:
                continue
            if acts_in_attention(kind):
                inside.append(part)
                if entry is not None and not takes_position(entry):
                    self.complain(self._no_heads(part, kind, mixer, entry))
            elif auto:
                self._stand_at_the_foot(part)
            elif chosen.special:
                self.complain(
                    f"{part.at}: {kind.short} acts once at the foot of the stack, so it must be chosen for the whole "
                    f"stack ({self.name}.position={kind.short}), but here it is chosen for some layers only. "
                    f"A layer may choose among: {', '.join(self._positions(inside=True))}."
                )
        specs = [self.r._block(part, ("position",), "position") for part in inside]
        if entry is None or not takes_position(entry) or None in specs or not specs:
            return chosen, None
        if len(specs) == 1:
            return inside[0], specs[0]
        both = Chosen("sum", chosen.at)
        given = {"parts": specs}
        return both, self.r._block(both, ("position",), "position", given)

    def _parts(self, chosen: Chosen) -> list[Chosen]:
        """A sum's parts, else the position itself; nothing for none."""
        if chosen.short in (None, "none"):
            return []
        if chosen.short != "sum":
            return [chosen]
        at, parts = chosen.paths.get("parts", f"{chosen.at}.parts"), chosen.choices.get("parts")
        if not isinstance(parts, list | tuple) or not parts:
            self.complain(f"{at}: must be a list of positions, as in position=[sinusoidal,rope], but got {parts!r}.")
            return []
        found = []
        for i, said in enumerate(parts):
            one = Chosen().refine(said, f"{at}.{i}")
            one.special = chosen.special
            for path, value in one.misfits.items():
                self.complain(f"{path}: must be the name of a position, or a mapping with one, but got {value!r}.")
            found += self._parts(one)
        return found

    def _positions(self, inside: bool) -> list[str]:
        entries = [self.r.registry[n] for n in self.r.registry.names("position")]
        return [e.short for e in entries if acts_in_attention(e) == inside and e.short not in ("none", "sum")]

    def _no_heads(self, part: Chosen, kind: Entry, mixer: Chosen, entry: Entry) -> str:
        return (
            f"{part.at}: {kind.short} acts inside attention, so the mixer must be attention, but {mixer.at} is "
            f"{entry.short}. For {self.name}.position choose auto, none or one that acts at the foot of a stack "
            f"({', '.join(self._positions(inside=False)) or 'none is registered'})."
        )

    def _remember(self, path: str, chosen: Chosen) -> None:
        """Where a person would change what stands at ``path`` of the spec, and where it stands if that is elsewhere."""
        here = path.removeprefix("model.")
        self.r.origins[path] = chosen.at if chosen.at in (here, "") else f"{chosen.at} ({here})"


def stacks_of(model: Entry) -> list[str]:
    """The stacks of a model: its choices that are one."""
    return [key for key, choice in model.choices.items() if choice.families == ("stack",)]


def is_causal(stack: str) -> bool:
    """Whether a model's stack must hide the future: a decoder does, an encoder does not."""
    return not stack.endswith("encoder")


def _reads(model: Entry, stack: str) -> bool:
    """Whether there is another sequence for a stack to read."""
    return is_causal(stack) and any(not is_causal(other) for other in stacks_of(model))


def nothing_to_read(path: str, model: Entry, registry: Registry) -> str:
    """The sentence for a cross-attention without a memory."""
    entries = [registry[n] for n in registry.names("model")]
    able = [e.short for e in entries if any(_reads(e, s) for s in stacks_of(e))]
    return (
        f"{path}: a cross-attention must have another sequence to read, but {model.short} has none there. "
        f"Leave it out, or choose a decoder that reads an encoder: model={' or '.join(able) or '...'}."
    )


def acts_in_attention(position: Entry) -> bool:
    """Whether a position acts inside attention, not at the foot of a stack: its facts say it."""
    return position.facts[:1] == ("n_heads",)


def takes_position(mixer: Entry) -> bool:
    """Whether a mixer is told about order: attention is."""
    return mixer.family == "attention"


def refuse_targets(config: Any, complain: Any, path: str = "") -> None:
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
