"""Holds presets to: they stand between the defaults and the words, and a word wins, however they are written."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from registry import REGISTRY
from registry.compose import Job, launch
from registry.quoting import spelt

BLOCKS = {
    "attention": {"mha": {"n_heads": 4}, "gqa": {"n_heads": 4, "n_kv_heads": 2}, "mqa": {"n_heads": 4}},
    "ffn": {"swiglu": {"d_ff": 96}, "geglu": {"activation": "gelu_tanh", "d_ff": 64}, "mlp": {"activation": "relu"}},
    "norm": {"rms": {"eps": 1e-4}, "layer": {"eps": 1e-3}},
    "position": {"rope": {"base": 500.0}, "alibi": {}, "none": {}},
    "mask": {"window": {"size": 5}, "causal": {}},
    "residual": {"pre_norm": {"dropout": 0.1}, "post_norm": {}},
}


class Jobs:
    """What ``launch`` makes of some words."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.records: list[Any] = []

    def __call__(self, *words: str) -> int:
        self.jobs = []

        def finish(records: list[Any]) -> int:
            self.records = records
            return int(any(r.status for r in records))

        return launch(lambda job: self.jobs.append(job) or job.record(), finish, list(words))

    def layer(self, number: int = 0, job: int = -1) -> dict[str, Any]:
        return self.jobs[job].spec["model"]["decoder"]["layers"][number]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))
    return Jobs()


MAPPING = "# @package _global_\nattention: {name: gqa, n_heads: 4, n_kv_heads: 2}\n"
DEFAULTS = "defaults: [{override /attention: gqa}]\nattention: {n_heads: 4, n_kv_heads: 2}\n"


@pytest.mark.parametrize("text", [MAPPING, DEFAULTS], ids=["mapping", "defaults"])
def test_a_word_wins_over_a_preset(run, text):
    Path("mine.yaml").write_text(text, encoding="utf-8")
    assert run("experiment=./mine.yaml") == 0
    assert run.layer()["mixer"]["name"] == "attention/gqa"
    assert run.layer()["mixer"]["n_kv_heads"] == 2
    assert run("experiment=./mine.yaml", "attention=mha") == 0
    assert run.layer()["mixer"]["name"] == "attention/mha"
    assert run.layer()["mixer"]["n_heads"] == REGISTRY["attention/mha"].choices["n_heads"].default
    assert run("-m", "experiment=./mine.yaml", "attention=mha,gqa,mqa") == 0
    assert [run.layer(job=n)["mixer"]["name"] for n in range(3)] == ["attention/mha", "attention/gqa", "attention/mqa"]
    assert run.layer(job=1)["mixer"]["n_kv_heads"] == 2  # the preset's own block keeps what it chose for it


def test_choices_of_the_old_block_are_dropped(run):
    Path("mine.yaml").write_text("ffn: {name: geglu, activation: gelu_tanh, d_ff: 64}\n", encoding="utf-8")
    assert run("experiment=./mine.yaml", "ffn=swiglu") == 0
    assert run.layer()["ffn"]["d_ff"] is None
    assert run("experiment=./mine.yaml", "ffn.d_ff=32") == 0
    assert (run.layer()["ffn"]["activation"], run.layer()["ffn"]["d_ff"]) == ("gelu_tanh", 32)


def test_a_word_that_a_more_special_preset_overrides_is_refused(run, capsys):
    Path("mine.yaml").write_text("decoder: {attention: {name: gqa}}\n", encoding="utf-8")
    assert run("experiment=./mine.yaml", "attention=mqa") == 2
    assert capsys.readouterr().err == (
        "error: attention: mqa must have an effect, but every layer takes its attention from decoder.attention. "
        "Leave it out, or choose it where it is used.\n"
    )
    assert run("experiment=./mine.yaml", "decoder.attention=mqa") == 0
    assert run.layer()["mixer"]["name"] == "attention/mqa"


def test_a_preset_builds_on_others(run):
    Path("base.yaml").write_text("attention: {name: gqa, n_kv_heads: 1}\nnorm: layer\n", encoding="utf-8")
    Path("sub").mkdir()
    Path("sub/mine.yaml").write_text(
        "defaults:\n- experiment: ../base.yaml\n- debug: tiny\n- _self_\n- norm: scale\nnorm: rms\n", encoding="utf-8"
    )
    assert run("experiment=./sub/mine.yaml") == 0
    assert run.layer()["mixer"]["n_kv_heads"] == 1
    assert run.layer()["residual"]["norm"]["name"] == "norm/scale"
    assert run.jobs[0].spec["model"]["d_model"] == 32


def test_a_preset_chooses_by_paths_as_the_command_line_does(run):
    Path("mine.yaml").write_text(
        "decoder.n_layers: 3\nattention.n_kv_heads: 1\nattention: gqa\n"
        "decoder/ffn: mlp\ndecoder.layers.0-1.ffn: geglu\n",
        encoding="utf-8",
    )
    assert run("experiment=./mine.yaml") == 0
    layers = run.jobs[0].spec["model"]["decoder"]["layers"]
    assert [layer["ffn"]["name"] for layer in layers] == ["ffn/geglu", "ffn/geglu", "ffn/mlp"]
    assert layers[0]["mixer"]["n_kv_heads"] == 1
    assert run("experiment=./mine.yaml", "decoder.n_layers=2", "attention=mha") == 0
    assert len(run.jobs[0].spec["model"]["decoder"]["layers"]) == 2


def test_a_preset_names_plugins_beside_itself(run, tmp_path):
    Path("there").mkdir()
    Path("there/beside_preset.py").write_text(
        "from blocks.norm.rms import RMSNorm\nfrom registry import register\n\n\n"
        '@register("norm/beside_preset")\nclass Beside(RMSNorm):\n    """Mine."""\n',
        encoding="utf-8",
    )
    Path("there/mine.yaml").write_text("plugins: [./beside_preset.py]\nnorm: beside_preset\n", encoding="utf-8")
    assert run("experiment=./there/mine.yaml") == 0
    assert run.layer()["residual"]["norm"]["name"] == "norm/beside_preset"
    assert run.jobs[0].plugins == [str(tmp_path / "there" / "beside_preset.py")]


def test_several_presets_stand_above_each_other(run):
    Path("a.yaml").write_text("attention: {name: gqa, n_kv_heads: 2}\n", encoding="utf-8")
    Path("b.yaml").write_text("attention: {name: linformer}\nmodel: {name: encoder_only}\n", encoding="utf-8")
    assert run("experiment=[./a.yaml,./b.yaml]") == 0
    (job,) = run.jobs
    assert job.spec["model"]["encoder"]["layers"][0]["mixer"]["name"] == "attention/linformer"


def test_another_model_drops_the_stacks_of_the_old_one(run):
    Path("pair.yaml").write_text(
        "model: {name: encoder_decoder}\nencoder: {n_layers: 2}\ndecoder: {n_layers: 3}\n", encoding="utf-8"
    )
    assert run("experiment=./pair.yaml") == 0
    assert len(run.jobs[0].spec["model"]["encoder"]["layers"]) == 2
    assert run("experiment=./pair.yaml", "model=decoder_only") == 0
    assert len(run.jobs[0].spec["model"]["decoder"]["layers"]) == 3
    assert "encoder" not in run.jobs[0].spec["model"]


def test_files_of_ones_own_are_found_from_any_folder(run, tmp_path):
    Path("there").mkdir()
    Path("there/mine.yaml").write_text("model: {name: encoder_only, d_model: 48}\n", encoding="utf-8")
    Path("there/vary.yaml").write_text("norm: [rms, layer]\n", encoding="utf-8")
    assert run("model=./there/mine.yaml", "attention.n_heads=4") == 0
    assert run.jobs[0].spec["model"]["d_model"] == 48
    assert run.jobs[0].overrides[0] == f"model={spelt(str(tmp_path / 'there/mine.yaml'))}"
    assert run("sweep=./there/vary.yaml") == 0
    assert [job.overrides for job in run.jobs] == [["norm=rms"], ["norm=layer"]]


HOLDS = "experiment: {file} must be a mapping from paths to values, as in attention: gqa, but it holds "


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "experiment: './mine.yaml' must be a file, but {file} is not there."),
        ("- 1\n", HOLDS + "[1]."),
        ("attention=gqa\n", HOLDS + "'attention=gqa'."),
        ("one\ntwo\n", HOLDS + "'one two'."),
        ("42", HOLDS + "'42'."),
        ("# attention: gqa\n", HOLDS + "nothing."),
        ("null", HOLDS + "nothing."),
        ("rerun: here\n", "experiment: {file} must not choose a run to do again; say rerun=... on the command line."),
        (
            "defaults: [{atention: gqa}]\n",
            "experiment: the defaults in {file} must choose presets or blocks, but 'atention' is neither. Did you mean "
            "'attention'? Presets: debug, experiment, sweep. Files end in .yaml or .yml.",
        ),
        (
            "debug: tiny\n",
            "experiment: {file} must choose another preset in its list defaults, as in '- /debug: name', but it has a "
            "value 'debug'.",
        ),
        ("a: [\n", "{file}: must be a YAML file that can be read, but: "),
        ("defaults: 3\n", "experiment: defaults in {file} must be a list, but got 3."),
        (
            "defaults: [{nowhere: x}]\n",
            "experiment: the defaults in {file} must choose presets or blocks, but 'nowhere' is",
        ),
        ("defaults: [{experiment: ./mine.yaml}]\n", "experiment: {file} must not be a part of itself."),
        ("attention: {_target_: os.system}\n", "attention._target_: a config must name registered blocks"),
        ("attention: {n_head: 3}\n", "attention.n_head: mha has no choice 'n_head'. Did you mean 'n_heads'?"),
    ],
)
def test_a_file_that_is_no_preset_is_refused(run, capsys, tmp_path, text, sentence):
    if text is not None:
        Path("mine.yaml").write_text(text, encoding="utf-8")
    assert run("experiment=./mine.yaml") == 2
    assert capsys.readouterr().err.startswith("error: " + sentence.replace("{file}", str(tmp_path / "mine.yaml")))


def test_what_is_asked_is_what_is_built(run):
    """300 words over presets drawn at random, in each of the ways to write one."""
    dice = random.Random(0)
    for number in range(75):
        preset, words = drawn_preset(dice), drawn_words(dice)
        Path("mine.yaml").write_text(preset, encoding="utf-8")
        assert run("experiment=./mine.yaml", *words) == 0, (number, preset, words)
        for word in words:
            assert_built(word, run.layer(), preset)


def drawn_preset(dice: random.Random) -> str:
    chosen = {slot: dice.choice(list(BLOCKS[slot])) for slot in dice.sample(list(BLOCKS), 3)}
    lines, defaults = [], []
    for slot, name in chosen.items():
        choices = {k: v for k, v in BLOCKS[slot][name].items() if dice.random() < 0.7}
        style = dice.choice(["mapping", "defaults", "name"])
        if style == "mapping":
            lines.append(f"{slot}: {spaced({'name': name, **choices})}")
        elif style == "name":
            lines.append(f"{slot}: {name}")
        else:
            defaults.append(f"- override /{slot}: {name}")
            lines.append(f"{slot}: {spaced(choices)}" if choices else "")
    return "\n".join(["defaults:", *defaults, *lines] if defaults else lines) + "\n"


def spaced(value: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}"


def drawn_words(dice: random.Random) -> list[str]:
    words = []
    for slot in dice.sample(list(BLOCKS), 4):
        name = dice.choice(list(BLOCKS[slot]))
        place = dice.choice([slot, f"decoder.{slot}", f"decoder/{slot}"])
        choices = {k: v for k, v in BLOCKS[slot][name].items() if dice.random() < 0.5}
        if dice.random() < 0.5:
            words.append(f"{place}={spelt({'name': name, **choices})}")
        else:
            words.append(f"{place}={name}")
            words += [f"{place.replace('/', '.')}.{k}={spelt(v)}" for k, v in choices.items()]
    dice.shuffle(words)
    return words


def assert_built(word: str, layer: dict[str, Any], preset: str) -> None:
    """The block that a word names stands in the layer, and what was chosen for it, and nothing of another block."""
    path, _, value = word.replace("/", ".").partition("=")
    slot, _, choice = path.removeprefix("decoder.").partition(".")
    block = layer["residual"]["norm"] if slot == "norm" else layer["mixer" if slot == "attention" else slot]
    block = block or {"name": "position/none"}
    name = block["name"].partition("/")[2]
    if choice:
        assert spelt(block[choice]) == value, (word, preset)
        return
    asked = value.strip("{}").partition(",")[0].removeprefix("name:")
    assert name == asked, (word, preset)
    allowed = set(BLOCKS[slot][name])
    defaults = {k: c.default for k, c in REGISTRY[block["name"]].choices.items() if not c.families}
    changed = {k for k, v in defaults.items() if block[k] != v}
    assert changed <= allowed, (word, preset, changed)
    assert all(block[k] == BLOCKS[slot][name][k] for k in changed), (word, preset)
