"""Blocks drawn at random: what composes keeps the laws, what can not work is refused with a sentence.

The command line is drawn, composed and resolved as a person's would be; only the training is left out.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from blocks.contracts import Layout, Memory, Model, Site
from blocks.laws import V, _draw, _full, _same, laws_of, starts_at_chance
from registry import REGISTRY, factory
from registry.compose import Job, Record, launch

VALID, WRONG = 200, 200
SLOTS = ("position", "mask", "norm", "ffn", "residual", "layer", "stack", "init")
SLOW = {"compiles", "costs_what_it_says"}  # held for every block by itself; the second draws no composition anew
SMALL = ["model.d_model=64", "model.max_length=64"]
PARTS = {"position/sum": "position=[alibi,rope]", "mask/and": "", "mask/or": ""}
"""Names that mean nothing without parts, as they would be said; the masks have their own tests."""


def options(*families: str) -> list[str]:
    return [REGISTRY[name].short for name in REGISTRY.names(*families) if name not in PARTS]


def draw(dice: random.Random) -> list[str]:
    """A command line: a model, and something in each slot."""
    model = dice.choice(options("model"))
    words = [*SMALL, f"model={model}", f"embedding={dice.choice(options('embedding'))}"]
    stacks = ["encoder", "decoder"] if model == "encoder_decoder" else [model.removesuffix("_only")]
    words += [f"{stack}.n_layers={dice.choice([1, 2])}" for stack in stacks]
    if dice.random() < 0.5:
        words.append(f"mixer={dice.choice(options('linear', 'recurrent', 'convolution'))}")
    else:
        words.append(f"attention={dice.choice(options('attention'))}")
    for slot in SLOTS:
        if dice.random() < 0.5:
            words.append(f"{slot}={dice.choice(options(slot))}")
    if "mask=window" in words:
        words.append("mask.size=4")
    if dice.random() < 0.2:
        words.append(PARTS["position/sum"])
        words = [w for w in words if not w.startswith("position=") or w == PARTS["position/sum"]]
    return words


def composed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Model | None, str]:
    """The status, the model and what was said of a command line."""
    built: list[Model] = []

    def build(job: Job) -> Record:
        torch.manual_seed(0)
        built.append(factory(job.spec["model"], ("model",), "model", job.origins)(V))
        return job.record()

    status = launch(build, lambda records: max(r.status for r in records), words)
    return status, built[0] if built else None, capsys.readouterr().err


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize("part", range(20))
def test_what_composes_keeps_the_laws(part, capsys):
    """A tenth of the draws in each part, so that they can run side by side."""
    dice, kept, tried = random.Random(part), 0, 0
    while kept < VALID // 20:
        words = draw(dice)
        tried += 1
        assert tried < 40 * VALID, "hardly anything composes"
        status, model, said = composed(words, capsys)
        if model is None:
            assert status == 2, f"{' '.join(words)}: status {status}, {said}"
            assert_sentences(said)
            continue
        assert status == 0
        kept += 1
        holds(words, model)


def holds(words: list[str], model: Any) -> None:
    """Every law of every stack of a model, and of the model itself."""
    broken = []
    starts_at_chance(model.eval())
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
    assert not broken, "\n".join([" ".join(words), *broken])


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
        said = capsys.readouterr().err
        assert status == 2, f"{' '.join(words)}: status {status}, {said}"
        assert_sentences(said)


def assert_sentences(said: str) -> None:
    lines = [line for line in said.splitlines() if line.strip()]
    assert lines, "nothing was said"
    for line in lines:
        assert line.startswith("error: "), line
        assert line.endswith((".", "?", "]", ")")) and len(line) > 30, line
    assert "Traceback" not in said
