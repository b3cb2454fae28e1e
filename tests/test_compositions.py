"""Blocks drawn at random: what composes keeps the laws, what can not work is refused with a sentence.

The command line is drawn, composed and resolved as a person's would be; only the training is left out. A mistake
is drawn as well: a line that composes, with one thing wrong in it.
"""

from __future__ import annotations

import copy
import functools
import random
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import torch

from blocks.cases import is_attention_position, small
from blocks.laws import Reader, V, laws_of, starts_at_chance
from blocks.matrix import judge
from registry import REGISTRY, ConfigError, factory
from registry.compose import Job, launch
from registry.core import MIXERS, Entry
from registry.slots import trace
from registry.tables import LAYER_SLOTS, MODEL_SLOTS, RUN_SLOTS, STACK_SLOTS
from registry.values import families_of

VALID, WRONG, COMPILED = 200, 200, 6
PARTS = ("position/sum", "mask/and", "mask/or")
"""Names that mean nothing without parts."""

SLOTS = {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS, "model": ("model",)}
WIDTH, LENGTH = 64, 64

Made = dict[str, Any]
"""What was chosen, by its path in the config."""


# What is drawn ------------------------------------------------------------------------------------------------------


def options(*families: str) -> list[str]:
    return [REGISTRY[name].short for name in REGISTRY.names(*families) if name not in PARTS]


def draw(dice: random.Random) -> Made:
    """A model, and something in each slot."""
    made: Made = {"model": dice.choice(options("model")), "model.d_model": WIDTH, "model.max_length": LENGTH}
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
    return made


def stacks_of(made: Made) -> list[str]:
    return [stack for stack in ("encoder", "decoder") if stack in base(made["model"])]


@functools.cache
def base(model: str) -> dict[str, Any]:
    """The config of a model of which nothing else is chosen, as the command line composes it."""
    jobs: list[Job] = []
    assert launch(lambda job: jobs.append(job) or job.record(), lambda records: 0, [f"model={model}"]) == 0
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
    """The command line."""
    return [f"{path}={spelt(value)}" for path, value in made.items()]


def spelt(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{spelt(v)}" for k, v in value.items()) + "}"
    return f"[{','.join(map(spelt, value))}]" if isinstance(value, list) else str(value)


def build(made: Made, device: str = "cpu") -> Any:
    """The model, or a ``ConfigError``."""
    resolved = trace(config_of(made))
    torch.manual_seed(0)
    with torch.device(device):
        return factory(resolved.spec["model"], ("model",), "model", resolved.origins)(V)


def composing(dice: random.Random, device: str = "cpu") -> tuple[Made, Any]:
    """The first of many draws that composes, and its model; what does not is refused with a sentence."""
    for _ in range(400):
        made = draw(dice)
        try:
            return made, build(made, device)
        except ConfigError as refusal:
            assert_sentences(str(refusal))
    raise AssertionError("hardly anything composes")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))


# What composes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(20))
def test_what_composes_keeps_the_laws(part):
    """A twentieth of the draws in each part, so that they can run side by side."""
    dice = random.Random(part)
    for _ in range(VALID // 20):
        made, model = composing(dice)
        broken = [] if starts_without_scale(made) else failures(starts_at_chance, model.eval())
        for name, mixer in mixers_in(model):
            laws = [law for law in laws_of(mixer) if law.__name__ not in excused(made, mixer)]
            broken += [f"{name}: {failure}" for law in laws for failure in failures(law, mixer)]
        assert not broken, "\n".join([*words_of(made), *broken])


@pytest.mark.parametrize("part", range(COMPILED))
def test_what_composes_compiles(part):
    made, model = composing(random.Random(1000 + part))
    for name, mixer in mixers_in(model):
        (law,) = [law for law in laws_of(mixer) if law.__name__ == "compiles"]
        assert not failures(law, mixer), "\n".join([name, *words_of(made), *failures(law, mixer)])


def mixers_in(model: Any) -> list[tuple[str, Any]]:
    """The stacks of a model in float64, a decoder with a source to read where it reads one."""
    model = model.double().eval()
    found = [(name, getattr(model, name)) for name in ("encoder", "decoder") if hasattr(model, name)]
    return [(name, Reader(s) if len(found) == 2 and name == "decoder" else s) for name, s in found]


def failures(law: Callable[[Any], None], block: Any) -> list[str]:
    torch.manual_seed(0)
    try:
        law(block)
    except Exception as error:
        return [f"{law.__name__}: {type(error).__name__}: {error}"]
    return []


def excused(made: Made, mixer: Any) -> set[str]:
    """Compiling takes long, and a sample has it to itself. Where layers before a router round, a token that is
    nearly as near to another expert goes there; with no residual, nothing else is left of it, and no bound can hold.
    """
    rounds_before_a_router = (made.get("ffn"), made.get("residual")) == ("moe", "none")
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


# What can not work --------------------------------------------------------------------------------------------------


class Mistake(NamedTuple):
    """A line with something wrong in it.

    names: What the report must speak of: where it is, and what came. status: What the program ends with.
    """

    made: Made
    names: tuple[Any, ...]
    status: int = 2


def a_misspelt_name(dice: random.Random, made: Made) -> Mistake:
    path, entry = dice.choice(blocks_in(made))
    wrong = misspelt(dice, entry.short, options(*families_at(path)))
    return Mistake(made | {path: wrong}, (path, wrong))


def an_unknown_choice(dice: random.Random, made: Made) -> Mistake:
    path, entry = dice.choice(blocks_in(made))
    wrong = misspelt(dice, dice.choice([*entry.choices, "size"]), list(entry.choices))
    return Mistake(made | {f"{path}.{wrong}": 1}, (f"{path}.{wrong}", entry.short))


def a_value_of_the_wrong_type(dice: random.Random, made: Made) -> Mistake | None:
    path, key, kind = dice.choice(choices_in(made))
    wrong = unfit(dice, kind)
    return Mistake(made | {f"{path}.{key}": wrong}, (f"{path}.{key}", wrong))


def a_number_out_of_range(dice: random.Random, made: Made) -> Mistake | None:
    numbers = [(path, key, kind) for path, key, kind in choices_in(made) if bounds(key, kind)]
    if not numbers:
        return None
    path, key, kind = dice.choice(numbers)
    wrong = dice.choice(bounds(key, kind))
    return Mistake(made | {f"{path}.{key}": wrong}, (path, wrong))


def heads_that_do_not_divide(dice: random.Random, made: Made) -> Mistake:
    """In a mixer that lives in every stack, so that nothing else is wrong."""
    able = [m for m in mixers() if "n_heads" in m.choices and m.short not in ("linformer", "nystrom")]
    mixer = dice.choice([m for m in able if m.choices["n_heads"].default > 1])
    n_heads = dice.choice([n for n in range(3, 40) if WIDTH % n])
    return Mistake(
        without(made, "attention", "position", "mask") | mixing(mixer, n_heads=n_heads), ("n_heads", n_heads)
    )


def key_heads_that_do_not_divide(dice: random.Random, made: Made) -> Mistake:
    mixer, heads = dice.choice([m for m in mixers() if "n_kv_heads" in m.choices]), dice.choice([3, 5, 6, 7, 16])
    made = without(made, "attention", "position", "mask") | mixing(mixer, n_heads=8, n_kv_heads=heads)
    return Mistake(made, ("n_kv_heads", heads))


def a_rotary_width_that_is_odd(dice: random.Random, made: Made) -> Mistake:
    mixer = dice.choice([REGISTRY[f"attention/{name}"] for name in ("mha", "gqa", "mqa", "talking_heads")])
    width, position = 2 * dice.randrange(8) + 1, dice.choice(["rope", "xpos"])
    made = without(made, "attention", "mixer") | mixing(mixer, head_dim=width) | {"position": position}
    return Mistake(made, ("position", width))


def a_mask_that_shows_nothing(dice: random.Random, made: Made) -> Mistake:
    """Each in its own words; a prefix is for encoders, which is another mistake."""
    mask = dice.choice(["window", "chunked", "dilated", "longformer", "bigbird", "strided"])
    key, size = "stride" if mask == "strided" else "size", -dice.randrange(9)
    return Mistake(without(made, "mask", "mixer") | {"mask": mask, f"mask.{key}": size}, ("mask", size))


def a_block_of_another_family(dice: random.Random, made: Made) -> Mistake:
    path, _ = dice.choice(blocks_in(made))
    names = [n for n in options() if n not in options(*families_at(path)) and n not in ("attention", "auto")]
    wrong = dice.choice(names)
    return Mistake(made | {path: wrong}, (path, wrong))


def a_mixer_where_it_can_not_live(dice: random.Random, made: Made) -> Mistake:
    """Drawn until the matrix says that it is refused."""
    stack = dice.choice(stacks_of(made))
    masks = [n for n in REGISTRY.names("mask") if n not in PARTS]
    positions = [n for n in REGISTRY.names("position") if n not in PARTS and is_attention_position(n)]
    while True:
        mixer, mask, position = dice.choice(mixers()), dice.choice(masks), dice.choice(positions)
        if judge(stack, mixer.name, mask, position)[0] == "refused":
            break
    there = {"mixer": mixer.short, "mask": small(REGISTRY[mask]) | {"name": mask}, "position": position}
    made = without(made, "mixer", "attention", "mask", "position") | {f"{stack}.{k}": v for k, v in there.items()}
    return Mistake(made, (stack,))


def a_decoder_that_sees_the_future(dice: random.Random, made: Made) -> Mistake | None:
    if "decoder" not in stacks_of(made):
        return None
    return Mistake(without(made, "mask") | {dice.choice(["decoder.mask", "decoder.layers.0.mask"]): "full"}, ("mask",))


def a_layer_that_is_not_there(dice: random.Random, made: Made) -> Mistake:
    stack = dice.choice(stacks_of(made))
    layer = dice.choice(["first", "-1", *range(made[f"{stack}.n_layers"], 9)])
    return Mistake(made | {f"{stack}.layers.{layer}.ffn": "mlp"}, (f"{stack}.layers.{layer}",))


def no_layers(dice: random.Random, made: Made) -> Mistake:
    path, wrong = f"{dice.choice(stacks_of(made))}.n_layers", dice.choice([0, -2, "many", 1.5])
    return Mistake(made | {path: wrong}, (path, wrong))


def a_pattern_of_nothing(dice: random.Random, made: Made) -> Mistake:
    stack = dice.choice(stacks_of(made))
    word = dice.choice([misspelt(dice, "local", []), misspelt(dice, "global", []), "local*0", "local*x"])
    return Mistake(made | {f"{stack}.pattern": dice.sample(["global", word], 2)}, (f"{stack}.pattern", word))


def a_variant_that_nobody_is(dice: random.Random, made: Made) -> Mistake:
    stack, slot = dice.choice(stacks_of(made)), dice.choice(["norm", "ffn", "residual"])
    made = made | {f"{stack}.variants.mine.{slot}": dice.choice(options(slot))}
    return Mistake(made, (f"{stack}.variants.mine",))


def a_slot_that_no_layer_has(dice: random.Random, made: Made) -> Mistake:
    stack = dice.choice(stacks_of(made))
    slot = dice.choice(["embedding", "head", "stack", *(misspelt(dice, s, list(LAYER_SLOTS)) for s in LAYER_SLOTS)])
    return Mistake(made | {f"{stack}.layers.0.{slot}": "mlp"}, (f"{stack}.layers.0.{slot}",))


def a_setting_that_means_nothing(dice: random.Random, made: Made) -> Mistake:
    config = config_of(made)
    places = {"": [*SLOTS, "seed", "trainer", "compile"], "trainer": list(config["trainer"])}
    places |= {stack: ["n_layers", "pattern", *STACK_SLOTS] for stack in stacks_of(made)}
    places |= {slot: list(REGISTRY[f"{slot}/{name}"].choices) for slot, name in ON.items()}
    place = dice.choice(list(places))
    key = misspelt(dice, dice.choice(places[place]), places[place])
    path = f"{place}.{key}".lstrip(".")
    return Mistake(made | {path: 3}, (path,))


def a_setting_of_the_wrong_kind(dice: random.Random, made: Made) -> Mistake:
    wrong = {"seed": "x", "compile": "perhaps", "dry_run": "maybe", "backend": "fast", "name": "[a]", "params": 3}
    wrong |= {"trainer.max_steps": 0, "trainer.precision": 9, "logger": "nowhere", "callbacks": "[alarm]"}
    wrong |= dict.fromkeys(stacks_of(made), 3)
    path = dice.choice(list(wrong))
    return Mistake({k: v for k, v in made.items() if not k.startswith(f"{path}.")} | {path: wrong[path]}, (path,))


def a_default_for_nobody(dice: random.Random, made: Made) -> Mistake:
    _, entry = dice.choice(blocks_in(made))
    wrong = misspelt(dice, entry.short, [n.partition("/")[2] for n in REGISTRY.names()])
    key = misspelt(dice, dice.choice([*entry.choices, "size"]), list(entry.choices))
    path, said = dice.choice([(f"params.{wrong}", {"size": 3}), (f"params.{entry.short}.{key}", 3)])
    return Mistake(made | {path: said}, (path,))


def a_width_or_length_of_nothing(dice: random.Random, made: Made) -> Mistake:
    path, wrong = dice.choice(["model.d_model", "model.max_length"]), dice.choice([0, -5, "wide", 2.5])
    return Mistake(made | {path: wrong}, (path.partition(".")[2], wrong))


def a_stack_that_is_not_there(dice: random.Random, made: Made) -> Mistake | None:
    stack = next((s for s in ("encoder", "decoder") if s not in stacks_of(made)), None)
    if stack is None:
        return None
    slot = dice.choice(["norm", "ffn", "residual", "mask"])
    said = dice.choice([{f"{stack}.n_layers": 2}, {f"{stack}.{slot}": dice.choice(options(slot))}])
    return Mistake(made | said, (stack, made["model"]))


def a_cross_attention_that_can_not_read(dice: random.Random, made: Made) -> Mistake | None:
    if made["model"] == "encoder_only":
        return None
    reads = len(stacks_of(made)) == 2
    name = dice.choice(["none", *options("linear", "recurrent", "convolution")] if reads else options("attention"))
    return Mistake(made | {"decoder.cross_attention": name}, ("cross_attention",))


def a_position_without_heads(dice: random.Random, made: Made) -> Mistake:
    mixer = dice.choice(options("linear", "recurrent", "convolution"))
    inside = [n for n in options("position") if is_attention_position(f"position/{n}") and n != "none"]
    position = dice.choice(inside)
    return Mistake(without(made, "attention", "mixer") | {"mixer": mixer, "position": position}, (position, mixer))


def a_foot_in_some_layers(dice: random.Random, made: Made) -> Mistake:
    stack = dice.choice(stacks_of(made))
    foot = dice.choice([n for n in options("position") if not is_attention_position(f"position/{n}")])
    path = f"{stack}.layers.0.position"
    return Mistake(made | {path: foot}, (path, foot))


def streams_that_do_not_meet(dice: random.Random, made: Made) -> Mistake:
    stack = dice.choice(stacks_of(made))
    others = [n for n in options("residual") if n != "hyper_connections"]
    mixed = {f"{stack}.n_layers": 2, "residual": dice.choice(others), f"{stack}.layers.1.residual": "hyper_connections"}
    return Mistake(without(made, "residual") | mixed, ("streams",))


def several_blocks_for_one(dice: random.Random, made: Made) -> Mistake:
    path, entry = dice.choice([(p, e) for p, e in blocks_in(made) if p.rpartition(".")[2] != "position"])
    return Mistake(made | {path: [entry.short, dice.choice(options(*families_at(path)))]}, (path,))


def a_python_object(dice: random.Random, made: Made) -> Mistake:
    path, _ = dice.choice(blocks_in(made))
    return Mistake(made | {f"{path}._target_": "os.getcwd"}, (f"{path}._target_", "os.getcwd"))


def data_longer_than_the_model(dice: random.Random, made: Made) -> Mistake:
    length = LENGTH + dice.randrange(1, 10**6)
    return Mistake(made | {"data.length": length}, ("data.length", length, LENGTH))


def data_that_is_not_there(dice: random.Random, made: Made) -> Mistake:
    nowhere = f"nowhere-{dice.randrange(1000)}"
    which = dice.choice([{"data.path": nowhere}, {"data.path": "train.py", "data.val_path": f"[{nowhere}]"}])
    return Mistake(made | {"data": "text", **which}, ("data", nowhere), status=3)


def a_checkpoint_that_is_not_there(dice: random.Random, made: Made) -> Mistake:
    nowhere = f"nowhere-{dice.randrange(1000)}.ckpt"
    key = dice.choice(["ckpt_path", "rerun"])
    return Mistake(made | {key: nowhere}, (key, nowhere), status=4)


def a_machine_that_is_not_this(dice: random.Random, made: Made) -> Mistake:
    absent = "cuda" if torch.backends.mps.is_available() else "mps"
    asked = dice.choice([{"trainer.devices": 4096}, {"trainer.accelerator": absent}])
    return Mistake(made | asked, tuple(asked), status=5)


def a_plugin_that_is_not_there(dice: random.Random, made: Made) -> Mistake:
    nowhere = dice.choice([f"./nowhere_{dice.randrange(1000)}.py", f"no.such.module{dice.randrange(1000)}"])
    return Mistake(made | {"plugins": [nowhere]}, ("plugins", nowhere))


KINDS: list[Callable[[random.Random, Made], Mistake | None]] = [
    a_misspelt_name,
    an_unknown_choice,
    a_value_of_the_wrong_type,
    a_number_out_of_range,
    heads_that_do_not_divide,
    key_heads_that_do_not_divide,
    a_rotary_width_that_is_odd,
    a_mask_that_shows_nothing,
    a_block_of_another_family,
    a_mixer_where_it_can_not_live,
    a_decoder_that_sees_the_future,
    a_layer_that_is_not_there,
    no_layers,
    a_pattern_of_nothing,
    a_variant_that_nobody_is,
    a_slot_that_no_layer_has,
    a_setting_that_means_nothing,
    a_setting_of_the_wrong_kind,
    a_default_for_nobody,
    a_width_or_length_of_nothing,
    a_stack_that_is_not_there,
    a_cross_attention_that_can_not_read,
    a_position_without_heads,
    a_foot_in_some_layers,
    streams_that_do_not_meet,
    several_blocks_for_one,
    a_python_object,
    data_longer_than_the_model,
    data_that_is_not_there,
    a_checkpoint_that_is_not_there,
    a_machine_that_is_not_this,
    a_plugin_that_is_not_there,
]

OFTEN = [a_value_of_the_wrong_type, a_number_out_of_range, a_mixer_where_it_can_not_live, a_misspelt_name] * 3
"""Kinds with many faces."""

ON = {"data": "python_source", "optimizer": "adamw", "schedule": "cosine"}
"""What runs when nothing is drawn."""


def mistaken(number: int) -> Mistake:
    """A line that composes, and something wrong in it; every kind in its turn."""
    dice, kinds = random.Random(number), [*KINDS, *OFTEN]
    kind = kinds[number % len(kinds)]
    while True:
        made, _ = composing(dice, "meta")
        if "dependency" in str(made):  # text has no trees: that would be a second mistake
            continue
        mistake = kind(dice, made)
        if mistake is not None:
            return mistake


def blocks_in(made: Made) -> list[tuple[str, Entry]]:
    """Each block that was drawn, with its path."""
    said = {path: value["name"] if isinstance(value, dict) else value for path, value in made.items()}
    slots = {path: name for path, name in said.items() if path.rpartition(".")[2] in SLOTS and isinstance(name, str)}
    return [(path, REGISTRY.find(name, families_at(path))) for path, name in slots.items()]


def families_at(path: str) -> tuple[str, ...]:
    return SLOTS[path.rpartition(".")[2]]


def choices_in(made: Made) -> list[tuple[str, str, Any]]:
    """Each choice of each block that was drawn, with its annotation; what another slot fills is none."""
    blocks = [*blocks_in(made), *((slot, REGISTRY[f"{slot}/{name}"]) for slot, name in ON.items() if slot not in made)]
    filled = {"layer": LAYER_SLOTS, "stack": ("layers", *LAYER_SLOTS), "model": ("encoder", "decoder", *MODEL_SLOTS)}
    return [
        (path, key, choice.type)
        for path, entry in blocks
        for key, choice in entry.choices.items()
        if key not in filled.get(entry.family, ()) and key != "cross_position"
    ]


def mixers() -> list[Entry]:
    return [REGISTRY[name] for name in REGISTRY.names(*MIXERS)]


def slot_of(mixer: Entry) -> str:
    return "attention" if mixer.family == "attention" else "mixer"


def mixing(mixer: Entry, **choices: Any) -> Made:
    """This mixer in every layer."""
    slot = slot_of(mixer)
    return {"mixer": "attention", slot: mixer.short} | {f"{slot}.{key}": value for key, value in choices.items()}


def without(made: Made, *slots: str) -> Made:
    return {path: value for path, value in made.items() if path.rpartition(".")[2] not in slots}


def misspelt(dice: random.Random, word: str, known: list[str]) -> str:
    """Another word, a letter doubled, lost or added, that is not known either."""
    while True:
        i = dice.randrange(len(word))
        wrong = dice.choice([word[:i] + word[i:][:1] + word[i:], word[:i] + word[i + 1 :], f"{word[:i]}x{word[i:]}"])
        if wrong != word and wrong not in known and wrong[:1].isalpha() and len(wrong) > 1:
            return wrong


def unfit(dice: random.Random, kind: Any) -> Any:
    """Something that no reading of an annotation allows."""
    if get_origin(kind) is Literal:
        words = list(get_args(kind))
        return dice.choice([misspelt(dice, dice.choice(words), words), 3])
    if families_of(kind):
        return dice.choice(["nobody", 3])
    words = {"int": ["many", 2.5, [1, 2]], "float": ["much", [0.5]], "bool": ["perhaps", 3], "str": [3, 0.5]}
    first = next(name for name in ("str", "bool", "float", "int") if name in str(kind))
    return dice.choice(words[first])


def bounds(key: str, kind: Any) -> list[Any]:
    """Numbers of the right type beyond every range; nothing where there are none."""
    text = str(kind)
    if "Literal" in text or families_of(kind):
        return []
    if "float" in text:
        return ["nan", "inf", *([-0.1, 1.5] if key == "dropout" else [])]
    if "int" not in text or key == "seed":
        return []
    return [-3] if key in ("n_global", "n_random", "shared") else [-3, 0]


def assert_refused(words: list[str], names: tuple[Any, ...], status: int, capsys: Any) -> None:
    """It ends with ``status``, and one sentence a line says where, what must be, and what came."""
    from train import compare, train

    try:
        ended = launch(train, compare, words)
    except SystemExit as end:
        ended = end.code
    said = capsys.readouterr()
    line = " ".join(words)
    assert ended == status, f"{line}: status {ended}, {said.err}"
    assert "parameters" not in said.out, f"{line}: a table of parts was shown"
    lines = said.err.splitlines()
    assert all(one.startswith("error: ") for one in lines), f"{line}: {said.err}"
    report = "\n".join(one.removeprefix("error: ") for one in lines)
    assert_sentences(report)
    for name in names:
        assert spelt(name) in report.replace("'", "").replace(", ", ","), f"{line}: {name} is not spoken of: {report}"


def assert_sentences(report: str) -> None:
    """Each line: where, then what must be or what there is, to the end of a sentence."""
    lines = [line for line in report.splitlines() if line.strip()]
    assert lines, "nothing was said"
    for line in lines:
        assert line.endswith((".", "?", "]", ")")), line
        assert len(line) > 30, line
        assert WHERE.match(line), line
        assert EXPECTED.search(line), line


WHERE = re.compile(r"[^\s:]+( \([^)]*\))*(: | must )")
EXPECTED = re.compile(r"\b(must|has to|there is no|There are|It has|Did you mean)\b")


@pytest.mark.parametrize("part", range(10))
def test_what_can_not_work_is_refused_with_a_sentence(part, capsys):
    for number in range(part, WRONG, 10):
        mistake = mistaken(number)
        assert_refused([*words_of(mistake.made), "dry_run=true"], mistake.names, mistake.status, capsys)


OTHERS: list[list[str]] = [
    ["attention=mha", "attention=gqa"],
    ["attention"],
    ["norm={name: rms"],
    ["decoder={n_layers: 2}"],
    ["decoder.layers.-1.ffn=mlp"],
    ["position=dependency"],
    ["model=encoder_only", "position=cope"],
    ["mask=window", "mixer=retention"],
    ["head=linear", "head.bias=perhaps"],
    ["position=[alibi,lstm]"],
    ["mask=and", "mask.policies=[window]", "mask.dilation=2"],
    ["norm={name: rms, epsilon: 1}"],
    ["callbacks.nothing={}"],
    ["data.batch_size=0"],
    ["trainer.max_stepz=3"],
    ["experiment=nowhere"],
    ["sweep=nowhere"],
    ["params.gqa.n_kv_heads=3", "attention=gqa"],
    ["optimizer.lr=-1"],
]
"""What nobody draws: ways to write a line, and mistakes that need two things to be said."""


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_these_are_refused_too(words, capsys):
    assert_refused([*words, "dry_run=true"], (), 2, capsys)
