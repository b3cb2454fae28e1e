"""Compositions drawn at random: each one that is not refused keeps the laws.

The config is drawn, composed and resolved as a person's would be; a model is built from it, and the parts that would
train it. ``compose_with`` puts one name into every draw.
"""

from __future__ import annotations

import copy
import functools
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from blocks.laws import Reader, V, starts_at_chance
from blocks.laws.check import Verdict, held
from blocks.laws.faults import FAULTS, fault, file_of
from registry import REGISTRY, ConfigError, factory
from registry.compose import Job, launch
from registry.compose.asked import without_effect
from registry.compose.hydra import parse
from registry.core import MIXERS
from registry.slots import trace
from training.contracts import Data, shape_of
from training.laws.cases import cases
from training.laws.data import Source
from training.laws.optimizers import Descent
from training.laws.running import Writer
from training.laws.table import laws_of
from training.laws.trying import own_cache

WIDTH, LENGTH, STEPS = 64, 64, 1000

PARTS = ("position/sum", "mask/and", "mask/or")
"""Names that mean nothing without parts."""

TRIES = 400
"""How many draws may be refused until one composes."""

Made = dict[str, Any]
"""What was chosen, by its path in the config."""


class Composition(NamedTuple):
    """What was drawn, the spec it was resolved to, and the model."""

    made: Made
    spec: dict[str, Any]
    model: Any


def options(*families: str) -> list[str]:
    """The names of some families that can be chosen by name alone."""
    return [REGISTRY[name].short for name in REGISTRY.names(*families) if name not in PARTS]


def draw(dice: random.Random, fixed: str = "") -> Made:
    """A model and something in some slots, and what trains it; the block called ``fixed`` in its slot."""
    made: Made = {"model": dice.choice(options("model")), "model.d_model": WIDTH, "model.max_length": LENGTH}
    if fixed.startswith("model/"):
        made["model"] = REGISTRY[fixed].short
    made |= {f"{stack}.n_layers": dice.choice([1, 2]) for stack in stacks_of(made)}
    if dice.random() < 0.5:
        made["mixer"] = dice.choice(options("linear", "recurrent", "convolution"))
    else:
        made["attention"] = dice.choice(options("attention"))
    if len(stacks_of(made)) == 2 and dice.random() < 0.5:
        made["decoder.cross_attention"] = dice.choice(options("attention"))
    made["embedding"] = dice.choice(options("embedding"))
    for slot in ("position", "mask", "norm", "ffn", "residual", "layer", "stack", "init", "optimizer", "schedule"):
        if dice.random() < 0.5:
            name = dice.choice(options(slot))
            made[slot] = {"name": name, "size": 4} if name in ("window", "chunked") else name
    if dice.random() < 0.2:
        made["position"] = dice.sample(["alibi", "rope", "sinusoidal", "t5"], 2)
    if "attention" in made and dice.random() < 0.3:
        made["attention"] = _with_heads(dice, made["attention"])
    return _with(made, dice, fixed) if fixed else made


def _with_heads(dice: random.Random, attention: str) -> Any:
    """An attention with another score or normaliser, where it has a choice."""
    choices = REGISTRY[f"attention/{attention}"].choices.values()
    open_ = [c for c in choices if c.families in (("score",), ("normaliser",))]
    if not open_:
        return attention
    choice = dice.choice(open_)
    return {"name": attention, choice.name: dice.choice(options(*choice.families))}


def _with(made: Made, dice: random.Random, fixed: str) -> Made:
    """The draw with one block in its slot."""
    entry = REGISTRY[fixed]
    spec = (
        {**next(iter(cases(fixed))).spec, "name": entry.short}
        if entry.family not in ("layer", "stack")
        else entry.short
    )
    spec = entry.short if spec == {"name": entry.short} else spec
    if entry.family == "attention":
        return {**{k: v for k, v in made.items() if k != "mixer"}, "attention": spec}
    if entry.family in MIXERS:
        return {**{k: v for k, v in made.items() if k != "attention"}, "mixer": spec}
    if entry.family in ("score", "normaliser"):
        able = [
            n
            for n in options("attention")
            for c in REGISTRY[f"attention/{n}"].choices.values()
            if entry.family in c.families
        ]
        kept = {k: v for k, v in made.items() if k != "mixer"}
        return {**kept, "attention": {"name": dice.choice(able), entry.family: spec}}
    if entry.family == "model":
        return made
    if entry.family == "head":  # some share a table, some have none to share
        return {**made, "head": spec, "model.tie": dice.random() < 0.5}
    if entry.family in ("callback", "logger"):
        return {**made, {"callback": "callbacks", "logger": "logger"}[entry.family]: [spec]}
    return {**made, entry.family: spec}


def _takes(attention: str, family: str) -> bool:
    return any(family in choice.families for choice in REGISTRY[f"attention/{attention}"].choices.values())


def stacks_of(made: Made) -> list[str]:
    """The stacks of the model that was drawn."""
    return [stack for stack in ("encoder", "decoder") if stack in base(made["model"])]


@functools.cache
def base(model: str) -> dict[str, Any]:
    """The config of a model of which nothing else is chosen, as the command line composes it."""
    jobs: list[Job] = []

    def note(job: Job) -> Any:
        jobs.append(job)
        return job.record()

    before = os.environ.get("BLOCKWRIGHT_RUNS")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BLOCKWRIGHT_RUNS"] = folder
        try:
            status = launch(note, lambda records: 0, [f"model={model}"])
        finally:
            os.environ.pop("BLOCKWRIGHT_RUNS")
            if before is not None:
                os.environ["BLOCKWRIGHT_RUNS"] = before
    assert status == 0, f"model={model} must compose by itself"
    return jobs[0].config


def config_of(made: Made) -> dict[str, Any]:
    """What the command line would compose."""
    config = copy.deepcopy(base(made["model"]))
    for path, value in made.items():
        *sections, key = path.split(".")
        section = functools.reduce(lambda inside, name: inside[name], sections, config)
        section[key] = {"name": value} if path == "model" else value
    return config | {"model": {**config["model"], "name": made["model"]}}


def words_of(made: Made) -> list[str]:
    """The command line that would choose the same."""
    return [f"{path}={spelt(value)}" for path, value in made.items()]


def spelt(value: Any) -> str:
    """A value as a word of the command line has it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{spelt(v)}" for k, v in value.items()) + "}"
    return f"[{','.join(map(spelt, value))}]" if isinstance(value, list) else str(value)


def build(made: Made, device: str = "cpu") -> Composition:
    """The composition, or a ``ConfigError``; a word without effect is one."""
    resolved = trace(config_of(made))
    unused = without_effect(map(parse, words_of(made)), resolved)
    if unused:
        raise ConfigError("\n".join(unused.values()))
    torch.manual_seed(0)
    data_of(resolved.spec, 0)  # whether the parts that train it take one another
    with torch.device(device):
        model = factory(resolved.spec["model"], ("model",), "model", resolved.origins)(V)
    return Composition(made, resolved.spec, model)


def composing(
    dice: random.Random, device: str = "cpu", fixed: str = "", judge: Callable[[str], None] = lambda refusal: None
) -> Composition:
    """The first of many draws that composes; ``judge`` is called with what refuses the others.

    Raises:
        ConfigError: None does; with the last refusal.
    """
    last = ""
    for _ in range(TRIES):
        try:
            return build(draw(dice, fixed), device)
        except ConfigError as refusal:
            last = str(refusal)
            judge(last)
    raise ConfigError(f"{fixed or 'what is drawn'} must compose with something, but was refused {TRIES} times: {last}")


def of_the_model(composition: Composition, file: str = "") -> Iterator[Verdict]:
    """The laws of a composition's model and of its stacks, but for compiling, which takes long.

    ``file`` is that of the block under trial, if it is one block.
    """
    made, _, model = composition
    label = " ".join(words_of(made))
    if not starts_without_scale(made):
        yield held(starts_at_chance, model.eval(), label, file)
    for name, mixer in mixers_in(model):
        for law in laws_of(mixer):
            if law.__name__ not in excused(made):
                yield held(law, mixer, f"{name} of {label}", file)


def of_the_run(composition: Composition, *families: str, file: str = "") -> Iterator[Verdict]:
    """The laws of what would train a composition's model; of some families, or of all. ``file``: see above."""
    made, spec, model = composition
    label = " ".join(words_of(made))
    with own_cache():
        for part in parts_of(spec, model, families):
            for law in laws_of(part):
                yield held(law, part, label, file)


def data_of(spec: dict[str, Any], seed: int) -> Data:
    """The data of a run, not read yet, with its objective and tokenizer."""
    gives = REGISTRY[spec["data"]["name"]].constructor.gives  # type: ignore[attr-defined]
    tokenizer = _part(spec, "tokenizer")
    objective = _part(spec, "objective", tokenizer, LENGTH, shape_of(spec["model"]), gives)
    return _part(spec, "data", tokenizer, objective, LENGTH, seed)


def _part(spec: dict[str, Any], slot: str, *facts: Any) -> Any:
    return factory(spec[slot], (slot,), slot)(*facts)


def parts_of(spec: dict[str, Any], model: Any, families: tuple[str, ...] = ()) -> Iterator[Any]:
    """What would train a model, as its laws take it: the parts of some families, or all."""

    def data(seed: int) -> Data:
        its = data_of(spec, seed)
        its.setup("fit")
        return its

    for family in families or RUN_FAMILIES:
        if family == "tokenizer":
            yield _part(spec, "tokenizer")
        elif family == "objective":
            yield data(0).objective
        elif family == "data":
            yield Source(data)
        elif family == "optimizer":
            yield Descent(_part(spec, "optimizer"), model)
        elif family == "schedule":
            yield _part(spec, "schedule", STEPS)
        elif family == "callback":
            yield from (factory(each, ("callback",))() for each in spec.get("callbacks") or [])
        elif family == "logger":
            yield from (Writer(factory(each, ("logger",))) for each in spec.get("logger") or [])


def compose_with(name: str, n: int) -> Iterator[Verdict]:
    """The laws of ``n`` compositions that hold the block called ``name``."""
    entry = REGISTRY[name]
    file = file_of(entry.constructor)
    if entry.family not in SLOTTED:
        yield Verdict(
            "compositions", entry.short, None, f"no slot of a config takes a block of family {entry.family!r}."
        )
        return
    for number in range(n):
        try:
            composition = composing(random.Random(f"{name} {number}"), fixed=name)
        except ConfigError as refusal:
            yield Verdict("composes", entry.short, False, str(refusal))
            return
        except FAULTS as error:  # a bug in the block: the other compositions are still tried
            yield Verdict("composes", entry.short, False, fault(error, file))
            continue
        try:
            if entry.family in RUN_FAMILIES:
                yield from of_the_run(composition, entry.family, file=file)
            else:
                yield from of_the_model(composition, file)
        except FAULTS as error:
            yield Verdict("composes", entry.short, False, fault(error, file))


RUN_FAMILIES = ("tokenizer", "objective", "data", "optimizer", "schedule", "callback", "logger")
SLOTTED = (
    *MIXERS,
    *(
        "position",
        "mask",
        "norm",
        "ffn",
        "residual",
        "layer",
        "stack",
        "init",
        "embedding",
        "head",
        "score",
        "normaliser",
        "model",
    ),
    *RUN_FAMILIES,
)


def mixers_in(model: Any) -> list[tuple[str, Any]]:
    """The stacks of a model in float64, a decoder with a source to read where it reads one."""
    model = model.double().eval()
    found = [(name, getattr(model, name)) for name in ("encoder", "decoder") if hasattr(model, name)]
    return [(name, Reader(s) if len(found) == 2 and name == "decoder" else s) for name, s in found]


def excused(made: Made) -> set[str]:
    """Compiling takes long, and a sample has it to itself. Where layers before a router round, a token that is nearly
    as near to another expert goes there; where no residual, or one that norms what is written, keeps the token larger
    than that, no bound can hold.
    """
    rounds_before_a_router = made.get("ffn") == "moe" and made.get("residual") in ("none", "sandwich")
    return {
        "compiles",
        *(["stands_bfloat16"] if rounds_before_a_router else []),
    }


def starts_without_scale(made: Made) -> bool:
    """Without any norm the head has no scale to count on where sublayers write at full strength: what a position adds
    at the foot, or a sublayer to what the one before wrote, reaches it as large as it is. (A residual rule that
    starts small, or adds nothing, keeps the stream as narrow as the embedding, and is under the law.)
    """
    full = ("pre_norm", "post_norm", "sandwich", "stochastic_depth", "deep_norm", "hyper_connections")
    return made.get("norm") == "none" and made.get("residual", "pre_norm") in full
