"""One stack of a model: which layer is what, from what is said in general, of the stack, of variants and of layers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.chosen import Chosen, Level
from registry.core import MISSING, MIXERS, Entry, Registry
from registry.errors import ConfigError
from registry.tables import CROSS, CROSS_INHERITS, LAYER_SLOTS, STACK_SETTINGS, STACK_SLOTS, VARIANTS
from registry.values import MisfitError, fit, guess

if TYPE_CHECKING:
    from registry.slots import Resolution


NO_NORM = "norm/none"
"""What stands after the last layer of a stack whose stream needs no norm there."""


class OneStack:
    """One stack of the model on its way to a spec."""

    def __init__(self, resolution: Resolution, model: Entry, name: str) -> None:
        self.r, self.model, self.name = resolution, model, name
        self.complain = resolution.complain
        self.causal = is_causal(name)
        self.reads = reads(model, name)
        self.section = self._section()
        self.general = [Level("", resolution.config), Level(name, self.section)]
        self.foot: dict[str, dict[str, Any]] = {}
        self.took_attention = False

    def spec(self) -> dict[str, Any] | None:
        whole = self.general
        stack = self.r.chosen("stack", whole)
        layers = []
        self._read_foot(self.r.chosen("position", whole))
        for i, special in enumerate(self._special_levels()):
            layers.append(self._layer(i, [*whole, *special]))
        said = self.section.get("attention")
        if said and not self.took_attention:
            self.complain(
                f"{self.name}.attention: some layer must use it, but every mixer of {self.name} is another. "
                f"Say {self.name}.mixer=attention, or leave it out."
            )
        norm = self.r.chosen("norm", whole)
        path = f"model.{self.name}"
        self.r.origins |= {path: stack.at, f"{path}.norm": norm.at}
        self.r.effective.update(stack.places)
        for i, at in enumerate(self.foot):
            self.r.origins[f"{path}.position.{i}"] = at
        given = {
            "layers": layers,
            "position": list(self.foot.values()),
            "norm": self._final_norm(norm, layers),
        }
        entry = self.r.find(stack, ("stack",), "stack")
        for key in given:
            self.r.refuse_choice(stack, key, f"it is filled from the slot {key.removesuffix('s')}: choose it there")
        return self.r.block(
            stack, ("stack",), "stack", {k: v for k, v in given.items() if entry and k in entry.choices}
        )

    def _final_norm(self, chosen: Chosen, layers: list[dict[str, Any] | None]) -> dict[str, Any] | None:
        """The norm after the last layer; none where the residual rule of that layer leaves the stream normalised."""
        rule = ((layers[-1] or {}).get("residual") or {}).get("name") if layers else None
        if rule and not getattr(self.r.registry[rule].constructor, "final_norm", True) and NO_NORM in self.r.registry:
            return self.r.registry.complete(NO_NORM)
        return self.r.block(chosen, ("norm",), "norm")

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
        spans = {key: self._span(str(key), n_layers) for key in self._mapping("layers")}
        self._refuse_crossing(spans)
        for key in sorted((k for k in spans if spans[k]), key=lambda k: -len(spans[k])):  # one layer is above several
            said, path = self._mapping("layers")[key], f"{self.name}.layers.{key}"
            by_slot = None if isinstance(said, str) else Level(path, self._slots_of(said, path), special=True)
            level = by_slot or self._named(said, path)
            for i in spans[key]:
                levels[i] += [level] if level else []
        return levels

    def _refuse_crossing(self, spans: Mapping[str, range]) -> None:
        """Two ranges that choose the same slot, and of which neither is within the other: none is the special one."""
        chosen = self._mapping("layers")
        for one, other in itertools.combinations(spans, 2):
            both = set(spans[one]) & set(spans[other])
            if both in (set(), set(spans[one]), set(spans[other])):
                continue
            fills = [LAYER_SLOTS if isinstance(chosen[key], str) else chosen[key] or {} for key in (one, other)]
            slots = [slot for slot in LAYER_SLOTS if slot in fills[0] and slot in fills[1]]
            if slots:
                named = ", ".join(map(str, sorted(both)))
                self.complain(
                    f"{self.name}.layers.{other}.{slots[0]}: each layer must be chosen once by ranges that cross, but "
                    f"{self.name}.layers.{one} chooses its {slots[0]} in {named} too. Let one lie within the other."
                )

    def _span(self, key: str, n_layers: int) -> range:
        """The layers that a key names: one, counted from the end below 0, or several as in ``0-2`` or ``[0-2]``."""
        found = re.fullmatch(r"(-?\d+)|\[?(\d+)-(\d+)\]?", key)
        if found:
            first = int(found[1] or found[2])
            first += n_layers if first < 0 else 0
            end = int(found[3]) if found[3] else first
            if 0 <= first <= end < n_layers:
                return range(first, end + 1)
        last = n_layers - 1
        those = f"0 to {last}" if last else "only 0"
        how = "" if key.isdigit() else f" Several layers are written 0-{last}, the last one -1."
        self.complain(f"{self.name}.layers.{key}: must be a layer of {self.name}, {those}, but got {key!r}.{how}")
        return range(0)

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
        mixer, families = self._mixer(levels)
        entry = self.r.find(mixer, families, "attention" if families == ("attention",) else "mixer")
        parts = {
            "mixer": (mixer, self._filled(mixer, families, "mixer", levels)),
            "mask": self._mask(levels),
            "position": self._position(levels, mixer, entry),
            "cross_attention": self._cross_attention(levels, index),
        }
        for slot in ("ffn", "residual", "norm"):
            chosen = self.r.chosen(slot, levels)
            parts[slot] = (chosen, self._filled(chosen, LAYER_SLOTS[slot], slot, levels))
        for slot, (chosen, _) in parts.items():
            self._remember(f"{here}.{slot}", chosen)
        self._remember(f"{here}.residual.norm", parts["norm"][0])

        layer = self.r.chosen("layer", levels)
        self._remember(here, layer)
        kind = self.r.find(layer, ("layer",), "layer")
        if kind is None:
            return None
        for slot in parts:
            self.r.refuse_choice(layer, slot, f"it is filled from the slot {slot}: say {slot}=...")
        for slot in ("position", "cross_attention"):
            if parts[slot][1] is not None and slot not in kind.choices:
                self.complain(f"{layer.at}: {kind.short} must have a slot for the {slot}, but it has none.")
        given = {slot: spec for slot, (_, spec) in parts.items() if slot in kind.choices}
        return self.r.block(layer, ("layer",), "layer", given)

    def _mixer(self, levels: list[Level]) -> tuple[Chosen, tuple[str, ...]]:
        """The mixer of a layer, and the families that it may come from."""
        mixer = self.r.chosen("mixer", levels)
        if mixer.name != "attention":
            return mixer, MIXERS
        self.took_attention = True
        self.r.effective.update(mixer.places)
        attention = self.r.chosen("attention", levels)
        attention.choices |= mixer.choices
        attention.paths |= mixer.paths
        return attention, ("attention",)

    def _filled(
        self, chosen: Chosen, families: tuple[str, ...], slot: str, levels: list[Level]
    ) -> dict[str, Any] | None:
        """The block written out; a residual rule's norm (and what a block has no default for) comes from its slot."""
        entry = self.r.find(chosen, families, slot)
        if entry is None:
            return None
        given = {}
        for key, choice in entry.choices.items():
            if key in ("norm", "ffn") and choice.families == LAYER_SLOTS[key] and key != slot:
                if slot != "residual" and choice.default is not MISSING:
                    continue
                part = self.r.chosen(key, levels)
                if key in chosen.choices:
                    part.refine(chosen.choices[key], chosen.paths[key])
                given[key] = self.r.block(part, choice.families, key)
        return self.r.block(chosen, families, slot, given)

    def _mask(self, levels: list[Level]) -> tuple[Chosen, dict[str, Any] | None]:
        chosen = self.r.chosen("mask", levels)
        if chosen.name == "auto":
            plain = "causal" if self.causal else "full"
            chosen = chosen.instead(plain, f"{chosen.at} (auto: {plain})")
        before = len(self.r.completion.problems)
        spec = self.r.block(chosen, ("mask",), "mask")
        if spec is not None and len(self.r.completion.problems) == before:
            try:  # a policy is a rule, not a module: making one costs nothing
                self.r.registry.factory(spec)(self.causal)
            except ConfigError as refusal:
                self.complain(f"{chosen.at}: {str(refusal).partition(': ')[2]}")
        return chosen, spec

    def _cross_attention(self, levels: list[Level], index: int) -> tuple[Chosen, dict[str, Any] | None]:
        chosen = self.r.chosen("cross_attention", levels)
        if not self.reads:
            own = self.r.chosen("cross_attention", levels[1:])
            if own.name not in (None, "auto", "none"):
                self.complain(nothing_to_read(own.at, self.model, self.r.registry))
            return chosen, None
        if chosen.name == "none":
            return chosen, None
        if chosen.name == "auto":
            chosen = chosen.instead(CROSS, f"{chosen.at} (auto: {CROSS})")
            entry = self.r.find(chosen, ("attention",), "cross_attention")
            said = self.r.chosen("attention", levels)
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
                entry = self.r.find(part, ("position",), "position")
                if entry and not acts_in_attention(entry):
                    self._stand_at_the_foot(part)

    def _stand_at_the_foot(self, part: Chosen) -> None:
        spec = self.r.block(part, ("position",), "position")
        if spec is not None and spec not in self.foot.values():
            self.foot[part.at] = spec

    def _position(
        self, levels: list[Level], mixer: Chosen, entry: Entry | None
    ) -> tuple[Chosen, dict[str, Any] | None]:
        """What a layer's attention is told about order; what acts at the foot is not the layer's to choose."""
        chosen = self.r.chosen("position", levels)
        auto = chosen.name == "auto"
        if auto:
            if entry is None:
                return chosen, None
            preferred = self.r.preferred("position", [entry]) or "none"
            chosen = chosen.instead(preferred, f"{chosen.at} (auto: {preferred})")
        inside = []
        for part in self._parts(chosen):
            kind = self.r.find(part, ("position",), "position")
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
        specs = [self.r.block(part, ("position",), "position") for part in inside]
        if entry is None or not takes_position(entry) or None in specs or not specs:
            return chosen, None
        if len(specs) == 1:
            return inside[0], specs[0]
        both = Chosen("sum", chosen.at)
        given = {"parts": specs}
        return both, self.r.block(both, ("position",), "position", given)

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
        self.r.effective.update(chosen.places)
        self.r.origins[path] = chosen.at if chosen.at in (here, "") else f"{chosen.at} ({here})"


def stacks_of(model: Entry) -> list[str]:
    """The stacks of a model: its choices that are one."""
    return [key for key, choice in model.choices.items() if choice.families == ("stack",)]


def is_causal(stack: str) -> bool:
    """Whether a model's stack must hide the future: a decoder does, an encoder does not."""
    return not stack.endswith("encoder")


def reads(model: Entry, stack: str) -> bool:
    """Whether there is another sequence for a stack to read."""
    return is_causal(stack) and any(not is_causal(other) for other in stacks_of(model))


def nothing_to_read(path: str, model: Entry, registry: Registry) -> str:
    """The sentence for a cross-attention without a memory."""
    entries = [registry[n] for n in registry.names("model")]
    able = [e.short for e in entries if any(reads(e, s) for s in stacks_of(e))]
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
