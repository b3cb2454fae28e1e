"""Blocks drawn at random: what composes keeps the laws, what can not work is refused with a sentence.

The command line is drawn, composed and resolved as a person's would be; only the training is left out.
"""

from __future__ import annotations

import copy
import functools
import random
from typing import Any

import pytest
import torch

from blocks.contracts import Layout
from blocks.laws import V, _same, laws_of, starts_at_chance
from registry import REGISTRY, ConfigError, factory
from registry.compose import Job, launch
from registry.slots import trace

VALID, WRONG = 200, 200
SLOW = {"compiles"}
"""Laws that every block is under by itself, and that would take most of the time here."""

PARTS = ("position/sum", "mask/and", "mask/or")
"""Names that mean nothing without parts."""


@functools.cache
def base(model: str) -> dict[str, Any]:
    """The config of a small model, as the command line composes it."""
    jobs: list[Job] = []
    words = [f"model={model}", "model.d_model=64", "model.max_length=64"]
    assert launch(lambda job: jobs.append(job) or job.record(), lambda records: 0, words) == 0
    return jobs[0].config


def options(*families: str) -> list[str]:
    return [REGISTRY[name].short for name in REGISTRY.names(*families) if name not in PARTS]


def draw(dice: random.Random) -> dict[str, Any]:
    """A config: a model, and something in each slot."""
    model = dice.choice(options("model"))
    config = copy.deepcopy(base(model))
    for stack in ("encoder", "decoder"):
        if stack in config:
            config[stack]["n_layers"] = dice.choice([1, 2])
    if dice.random() < 0.5:
        config["mixer"] = dice.choice(options("linear", "recurrent", "convolution"))
    else:
        config["attention"] = dice.choice(options("attention"))
    config["embedding"] = dice.choice(options("embedding"))
    for slot in ("position", "mask", "norm", "ffn", "residual", "layer", "stack", "init"):
        if dice.random() < 0.5:
            name = dice.choice(options(slot))
            config[slot] = {"name": name, "size": 4} if name in ("window", "chunked") else name
    if dice.random() < 0.2:
        config["position"] = dice.sample(["alibi", "rope", "sinusoidal", "t5"], 2)
    return config


def said(config: dict[str, Any]) -> str:
    """What was drawn, for the report of a failure."""
    whole = base(config["model"]["name"])
    return " ".join(f"{key}={value}" for key, value in config.items() if value != whole.get(key))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize("part", range(20))
def test_what_composes_keeps_the_laws(part):
    """A twentieth of the draws in each part, so that they can run side by side."""
    dice, kept, tried = random.Random(part), 0, 0
    while kept < VALID // 20:
        config = draw(dice)
        tried += 1
        assert tried < 40 * VALID, "hardly anything composes"
        try:
            resolved = trace(config)
            torch.manual_seed(0)
            model = factory(resolved.spec["model"], ("model",), "model", resolved.origins)(V)
        except ConfigError as refusal:
            assert_sentences(str(refusal))
            continue
        kept += 1
        holds(said(config), model)


def holds(drawn: str, model: Any) -> None:
    """Every law of every stack of a model, and of the model itself."""
    broken = []
    model.eval()
    if "norm=none" not in drawn:  # without a norm the stream has no scale that the head could count on
        try:
            starts_at_chance(model)
        except AssertionError as error:
            broken.append(f"starts_at_chance: {error}")
    model = model.double()
    for name in ("encoder", "decoder"):
        stack = getattr(model, name, None)
        if stack is None:
            continue
        reads = name == "decoder" and hasattr(model, "encode")
        laws = [goes_on_with_a_memory] if reads else [law for law in laws_of(stack) if law.__name__ not in SLOW]
        for law in laws:
            torch.manual_seed(0)
            try:
                law(model if reads else stack)
            except Exception as error:
                broken.append(f"{name}: {law.__name__}: {type(error).__name__}: {error}")
    assert not broken, "\n".join([drawn, *broken])


@torch.no_grad()
def goes_on_with_a_memory(model: Any) -> None:
    """A decoder that reads an encoder says the same at once and step by step, whatever pads the source."""
    tokens = torch.randint(0, V, (3, 9), generator=torch.Generator().manual_seed(0))
    source = torch.randint(0, V, (3, 7), generator=torch.Generator().manual_seed(1))
    layout, lengths = Layout.full(3, 9), torch.tensor([7, 3, 5])
    padded = Layout.padded(lengths, 7)
    memory = model.encode(source, padded)
    whole, _ = model.features(tokens, layout, memory=memory)
    state, parts = model.empty_state(3, 9), []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        y, state = model.features(tokens[:, start:stop], layout.slice(start, stop), state, memory)
        parts.append(y)
    _same(torch.cat(parts, dim=1), whole, "calls of 4, 1 and 4 tokens with a memory")
    alone = model.encode(source[1:2, :3], Layout.full(1, 3))
    one, _ = model.features(tokens[1:2], Layout.full(1, 9), memory=alone)
    _same(one, whole[1:2], "a source alone and padded among others")
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % V
    y, _ = model.features(later, layout, memory=memory)
    assert torch.equal(y[:, :5], whole[:, :5]), "a later token changes an earlier output"


MISTAKES: list[list[str]] = [
    ["attention=gqqa"],
    ["mixer=lstmm"],
    ["attention=gqa", "attention.kv_heads=2"],
    ["attention=gqa", "attention.n_kv_heads=3"],
    ["attention.n_heads=7"],
    ["attention.n_heads=many"],
    ["attention.n_heads=0"],
    ["attention.dropout=2.0"],
    ["attention.head_dim=5"],
    ["position=rope", "position.base=none"],
    ["position=alibi", "mixer=lstm"],
    ["mask=window", "mask.size=0"],
    ["mask=window", "mask.size=-3"],
    ["mask=full", "model=decoder_only"],
    ["mask=window", "mixer=gru"],
    ["mask=window", "mixer=retention"],
    ["mixer=linformer"],
    ["mixer=fourier"],
    ["mixer=nystrom"],
    ["model=encoder_only", "decoder.n_layers=2"],
    ["model=decoder_only", "encoder.mixer=lstm"],
    ["decoder.n_layers=0"],
    ["decoder.layers.9.ffn=mlp"],
    ["decoder.layers.first.ffn=mlp"],
    ["decoder.pattern=[local,nowhere]"],
    ["decoder.variants.local.position=learned", "decoder.pattern=[local,global]"],
    ["decoder.norms=rms"],
    ["optimiser=adamw"],
    ["optimizer.rate=0.1"],
    ["trainer.max_stepz=3"],
    ["trainer.precision=9"],
    ["params.gqa.heads=2"],
    ["params.nobody.n_heads=2"],
    ["model.d_model=0"],
    ["model.d_model=wide"],
    ["model.max_length=-1"],
    ["norm=batch"],
    ["ffn=mlp", "ffn.activation=sinus"],
    ["ffn=mlp", "ffn.d_ff=-5"],
    ["residual=post_nrm"],
    ["tokenizer=word"],
    ["data=nowhere"],
    ["schedule=cosine", "schedule.warmup=x"],
    ["position=dependency"],
    ["model=encoder_only", "position=cope"],
    ["head=linear", "head.bias=perhaps"],
    ["backend=fast"],
    ["decoder/cross_attention=mha"],
    ["seed=x"],
    ["callbacks.nothing={}"],
    ["norm={name: rms, epsilon: 1}"],
    ["data.length=100000"],
    ["data.batch_size=0"],
]


def mistaken(number: int) -> list[str]:
    """A random line of settings that would do, and a mistake."""
    dice = random.Random(number)
    harmless = ["seed=3", "optimizer.lr=1e-3", "trainer.max_steps=5", "name=try", "schedule=constant", "compile=false"]
    return [*dice.sample(harmless, 3), *MISTAKES[number % len(MISTAKES)], "dry_run=true"]


@pytest.mark.parametrize("part", range(10))
def test_what_can_not_work_is_refused_with_a_sentence(part, capsys):
    from train import compare, train

    for number in range(part, WRONG, 10):
        words = mistaken(number)
        try:
            status = launch(train, compare, words)
        except SystemExit as end:
            status = end.code
        report = capsys.readouterr().err
        assert status == 2, f"{' '.join(words)}: status {status}, {report}"
        assert "Traceback" not in report
        lines = report.splitlines()
        assert all(line.startswith("error: ") for line in lines), report
        assert_sentences("\n".join(line.removeprefix("error: ") for line in lines))


def assert_sentences(report: str) -> None:
    lines = [line for line in report.splitlines() if line.strip()]
    assert lines, "nothing was said"
    for line in lines:
        assert line.endswith((".", "?", "]", ")")), line
        assert len(line) > 30, line
