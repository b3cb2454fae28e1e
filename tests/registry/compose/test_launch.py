"""Holds the command line to what configuration.md promises, through the real launch in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from registry.compose import Job, Record, launch, reserve, together
from registry.errors import DIVERGED, STOPPED, DataError
from registry.plugins import load
from registry.program import as_started

ROOT = Path(__file__).parents[3]


class Runs:
    """What ``launch`` was asked to do, and what came of it."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.records: list[Record] = []

    def __call__(self, *words: str, **choices: Any) -> int:
        def job(one: Job) -> Record:
            self.jobs.append(one)
            return one.record(one.spec)

        def finish(records: list[Record]) -> int:
            self.records = records
            return int(any(r.status for r in records))

        return launch(choices.pop("job", job), finish, words, **choices)

    @property
    def model(self) -> dict[str, Any]:
        return self.jobs[-1].spec["model"]

    def of(self, slot: str, stack: str = "decoder") -> list[str | None]:
        found = [layer[slot] for layer in self.model[stack]["layers"]]
        return [block and block["name"].partition("/")[2] for block in found]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLOCKWRIGHT_RUNS", raising=False)
    return Runs()


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("error: ") for line in capsys.readouterr().err.splitlines()]


# Commands that must run as they are written -----------------------------------------------------------------------


def test_the_default_is_a_causal_decoder(run):
    assert run() == 0
    assert run.of("mixer") == ["mha"] * 4
    assert run.of("mask") == ["causal"] * 4
    assert run.of("position") == ["rope"] * 4
    assert run.jobs[0].spec["objective"]["name"] == "objective/next_token"
    assert run.jobs[0].overrides == []


def test_every_slot_is_an_option(run):
    words = ["attention=gqa", "position=alibi", "norm=layer", "ffn=geglu", "mask=window", "residual=post_norm"]
    assert run(*words) == 0
    layer = run.model["decoder"]["layers"][0]
    assert [layer[s]["name"] for s in ("mixer", "position", "ffn", "mask", "residual")] == [
        "attention/gqa",
        "position/alibi",
        "ffn/geglu",
        "mask/window",
        "residual/post_norm",
    ]
    assert layer["residual"]["norm"]["name"] == "norm/layer"
    assert run.jobs[0].overrides == words


def test_an_encoder_reads_both_ways(run):
    assert run("model=encoder_only") == 0
    assert run.of("mask", "encoder") == ["full"] * 4
    assert run.jobs[0].spec["objective"]["name"] == "objective/masked_token"


def test_stacks_choose_their_own_mixers(run):
    assert run("model=encoder_decoder", "decoder.mixer=lstm", "encoder.mixer=gru") == 0
    assert run.of("mixer", "encoder") == ["gru"] * 4
    assert run.of("mixer") == ["lstm"] * 4
    assert run.of("cross_attention") == ["mha"] * 4


def test_a_slot_of_a_stack_can_be_written_as_a_group(run):
    assert run("model=encoder_decoder", "mixer=lstm", "decoder/cross_attention=gqa", "decoder.n_layers=2") == 0
    assert run.of("cross_attention") == ["gqa"] * 2
    assert run.of("mixer", "encoder") == ["lstm"] * 4


def test_a_pattern_with_variants_and_a_layer(run):
    words = ["decoder.pattern=[local,local,global]", "decoder.variants.local.mask=window", "decoder.layers.0.ffn=mlp"]
    assert run(*words) == 0
    assert run.of("mask") == ["window", "window", "causal", "window"]
    assert run.of("ffn") == ["mlp", "swiglu", "swiglu", "swiglu"]


def test_data_and_tokenizer_are_options(run):
    assert run("data=text", "data.path=x.txt", "tokenizer=char") == 0
    spec = run.jobs[0].spec
    assert (spec["data"]["name"], spec["data"]["path"], spec["tokenizer"]["name"]) == (
        "data/text",
        "x.txt",
        "tokenizer/char",
    )


def test_a_choice_needs_no_plus(run):
    assert (
        run(
            "attention=gqa",
            "attention.n_kv_heads=4",
            "trainer.limit_val_batches=3",
            "decoder.mask.size=5",
            "mask=window",
        )
        == 0
    )
    assert run.model["decoder"]["layers"][0]["mixer"]["n_kv_heads"] == 4
    assert run.model["decoder"]["layers"][0]["mask"]["size"] == 5
    assert run.jobs[0].spec["trainer"]["limit_val_batches"] == 3


@pytest.mark.parametrize(
    "words", [["decoder.mixer=lstm", "decoder.mixer.d_hidden=32"], ["decoder.mixer.d_hidden=32", "decoder/mixer=lstm"]]
)
def test_a_name_and_its_choices_come_in_any_order(run, words):
    assert run(*words) == 0
    assert run.model["decoder"]["layers"][0]["mixer"]["d_hidden"] == 32
    assert run.of("mixer") == ["lstm"] * 4


def test_a_list_of_positions(run):
    assert run("position=[sinusoidal,rope]") == 0
    assert [p["name"] for p in run.model["decoder"]["position"]] == ["position/sinusoidal"]
    assert run.of("position") == ["rope"] * 4
    assert run.jobs[0].overrides == ["position=[sinusoidal,rope]"]


def test_callbacks_are_named_in_a_list_and_refined_by_path(run):
    assert run("callbacks=[early_stopping]", "callbacks.early_stopping.patience=7") == 0
    (callback,) = [c for c in run.jobs[0].spec["callbacks"] if c["name"] == "callback/early_stopping"]
    assert callback["patience"] == 7


def test_presets_are_options(run):
    assert run("experiment=local_global") == 0
    assert run.of("mask") == ["window", "window", "causal"] * 2


# Sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_runs_every_combination_in_a_folder_of_its_own(run):
    assert run("-m", "attention=mha,gqa", "position=rope,alibi", "seed=1,2") == 0
    assert [j.number for j in run.jobs] == list(range(8))
    assert len({r.folder for r in run.records}) == 8
    assert run.jobs[3].overrides == ["attention=mha", "position=alibi", "seed=2"]
    assert run.jobs[3].spec["seed"] == 2


def test_params_make_a_choice_of_one_block_sweepable(run):
    assert run("-m", "attention=mha,gqa", "params.gqa.n_kv_heads=1") == 0
    assert [j.spec["model"]["decoder"]["layers"][0]["mixer"]["n_kv_heads"] for j in run.jobs] == [None, 1]


def test_lists_can_be_swept(run):
    assert run("-m", "position=[sinusoidal,rope],rope") == 0
    assert [j.overrides for j in run.jobs] == [["position=[sinusoidal,rope]"], ["position=rope"]]


def test_a_sweep_goes_on_after_a_job_that_fails(run, capsys):
    assert run("-m", "mask=full,window", "attention.n_heads=2,4") == 1
    assert [r.status for r in run.records] == [2, 2, 0, 0]
    assert run.records[0].error.startswith("mask: mask must hide the future here")
    assert run.records[0].overrides == ["mask=full", "attention.n_heads=2"]


def test_a_sweep_can_be_a_file(run):
    assert run("sweep=attention", "seed=1") == 0
    assert [j.overrides for j in run.jobs] == [[f"attention={name}", "seed=1"] for name in ("mha", "gqa", "mqa")]
    Path("mine.yaml").write_text("position: [[sinusoidal, rope], rope]\n", encoding="utf-8")
    assert run("sweep=mine.yaml") == 0
    assert [j.overrides for j in run.jobs[3:]] == [["position=[sinusoidal,rope]"], ["position=rope"]]


def test_a_bug_in_one_job_keeps_its_traceback_and_the_others(run, capsys):
    def job(one: Job) -> Record:
        if one.spec["seed"] == 1:
            raise RuntimeError("a bug")
        return one.record()

    assert run("-m", "seed=0,1,2", job=job) == 1
    assert [r.status for r in run.records] == [0, 1, 0]
    assert run.records[1].error == "RuntimeError: a bug"
    assert "Traceback" in capsys.readouterr().err


def test_a_stopped_job_stops_the_sweep(run):
    assert run("-m", "seed=0,1,2", job=lambda one: one.record(status=STOPPED)) == 1
    assert [(r.status, r.error) for r in run.records] == [(STOPPED, "")] + 2 * [(STOPPED, "it did not begin")]


def test_jobs_with_one_spec_run_once(run):
    assert run("-m", "mixer=lstm,attention", "attention=mha,gqa") == 0
    assert [j.spec["model"]["decoder"]["layers"][0]["mixer"]["name"] for j in run.jobs] == [
        "recurrent/lstm",
        "attention/mha",
        "attention/gqa",
    ]
    first, *rest = run.records
    assert first.overrides == ["mixer=lstm", "attention=mha"]
    assert first.same == (["mixer=lstm", "attention=gqa"],)
    assert list(first.unused) == ["attention=mha"]
    assert [r.same for r in rest] == [(), ()]


def test_names_are_taken_from_a_group_by_a_pattern(run):
    assert run("-m", "norm=glob(*,exclude=[none,dynamic_*])") == 0
    assert [j.overrides for j in run.jobs] == [["norm=layer"], ["norm=rms"], ["norm=scale"]]
    assert run("-m", "decoder.norm=glob(r*)", "seed=range(1,3)") == 0
    assert [j.overrides for j in run.jobs[3:]] == [["decoder.norm=rms", "seed=1"], ["decoder.norm=rms", "seed=2"]]


def test_a_typing_mistake_in_a_sweep_is_found_before_a_job_starts(run, capsys):
    assert run("-m", "norm=rms,layr", "experiment=local_global,nope", "seed=1,2") == 2
    assert run.jobs == []
    said = errors(capsys)
    assert said[0].startswith("norm: no block is named 'layr'. Did you mean 'layer'?")
    assert said[1].startswith("experiment: no preset is named 'nope'")


def test_several_values_need_a_multi_run(run, capsys):
    assert run("optimizer.lr=1e-3,1e-4") == 2
    assert errors(capsys) == [
        "optimizer.lr: must be one value, but got several: 1e-3,1e-4. Add -m to run each of them, or put quotes around "
        "a value that holds a comma: 'optimizer.lr=\"1e-3,1e-4\"'."
    ]


# Words that have no effect ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mixer=lstm", "attention=gqa"], "attention: gqa must have an effect, but no layer has mixer=attention"),
        (["mixer=lstm", "attention.n_heads=2"], "attention.n_heads: 2 must have an effect, but no layer has"),
        (["norm=layer", "decoder.norm=rms"], "norm: layer must have an effect, but every layer takes its norm from "),
        (["position=none", "decoder.position=rope"], "position: none must have an effect, but every layer takes its "),
        (["residual=none", "norm=layer"], "norm: layer must have an effect, but no block that is built takes it."),
        (["params.gqa.n_kv_heads=1"], "params.gqa.n_kv_heads: 1 must have an effect, but no block that is built is "),
        (["backend=eager", "mixer=lstm"], "backend: eager must have an effect, but no block that is built takes it."),
    ],
)
def test_a_word_without_effect_is_refused(run, capsys, words, sentence):
    assert run(*words) == 2
    assert [e for e in errors(capsys) if e.startswith(sentence)]


@pytest.mark.parametrize(
    "words",
    [
        ["position=none"],
        ["mixer=attention"],
        ["mask=auto", "objective=auto"],
        ["decoder.mixer=attention", "decoder.attention.n_heads=4", "attention=mha"],
        ["model=encoder_decoder", "mixer=lstm", "attention.n_heads=4"],
        ["residual.norm.eps=1e-3", "ffn={name: moe, expert: {name: mlp, d_ff: 8}}"],
        ["callbacks=[checkpoint]", "logger=[]", "decoder={n_layers: 2}"],
        ["backend=eager", "params.mha.n_heads=4"],
        ["mask={name: and, policies: [{name: window, size: 3}, causal]}"],
        ["stack=looped", "stack.passes=3", "layer=parallel", "embedding=factorised", "init=small"],
    ],
    ids=" ".join,
)
def test_a_word_with_an_effect_is_taken(run, words):
    assert run(*words) == 0


def test_a_residual_rule_without_a_norm_has_none_in_the_spec(run):
    assert run("residual=none") == 0
    assert run.model["decoder"]["norm"]["name"] == "norm/none"
    assert "norm" not in run.model["decoder"]["layers"][0]["residual"]


def test_layers_are_named_one_by_one_from_the_end_and_several(run):
    assert run("decoder.layers.[0-2].ffn=mlp", "decoder.layers.-1.ffn=geglu", "decoder.layers.1-1.ffn=swiglu") == 0
    assert run.of("ffn") == ["mlp", "swiglu", "mlp", "geglu"]
    assert run("-m", "decoder.layers.0-1.ffn=mlp,geglu") == 0
    assert run.of("ffn") == ["geglu", "geglu", "swiglu", "swiglu"]


def test_the_name_of_a_block_has_a_path_of_its_own(run):
    assert run("attention.name=gqa", "attention.n_kv_heads=2", "decoder.layers.0.attention.name=mha") == 0
    assert run.of("mixer") == ["mha", "gqa", "gqa", "gqa"]


def test_nothing_chosen_of_a_stack_is_its_default(run):
    assert run("decoder=null") == 0
    assert run() == 0
    assert run.jobs[0].spec == run.jobs[1].spec


def test_ranges_that_cross_are_refused(run, capsys):
    assert run("decoder.layers.0-2.ffn=mlp", "decoder.layers.1-3.ffn=geglu") == 2
    assert errors(capsys) == [
        "decoder.layers.1-3.ffn: each layer must be chosen once by ranges that cross, but decoder.layers.0-2 chooses "
        "its ffn in 1, 2 too. Let one lie within the other."
    ]
    assert run("decoder.layers.0-2.ffn=mlp", "decoder.layers.1-3.norm=layer") == 0


@pytest.mark.parametrize("slot", ["attention", "data", "optimizer"])
def test_a_slot_that_needs_a_block_is_not_emptied(run, capsys, slot):
    assert run(f"{slot}=null") == 2
    assert errors(capsys)[0].startswith(f"{slot}: a block must be chosen, but none is. There are: ")


def test_a_list_of_callbacks_is_all_there_are(run):
    assert run("callbacks=[early_stopping]") == 0
    assert [c["name"] for c in run.jobs[0].spec["callbacks"]] == ["callback/early_stopping"]
    assert run("~callbacks.sample") == 0
    assert [c["name"] for c in run.jobs[1].spec["callbacks"]] == ["callback/checkpoint", "callback/progress"]


def test_text_that_looks_like_a_file_or_a_target_is_text(run):
    words = ["data=text", "data.path=a/my_target_.yaml", "ckpt_path=mine.yml"]
    assert run(*words) == 0
    assert run.jobs[0].spec["data"]["path"] == "a/my_target_.yaml"
    assert run.jobs[0].overrides == words


@pytest.mark.parametrize(
    "word", ["data={name: text, _target_: os.system}", "attention._target_=x", "norm._target_.a=x"]
)
def test_a_python_object_is_refused_wherever_it_stands(run, capsys, word):
    assert run(word) == 2
    assert errors(capsys)[0] == f"{word}: a config must name registered blocks, but this names a Python object."


def test_what_else_is_wrong_stands_in_the_same_report(run, capsys):
    def check(config):
        yield f"trainer.max_steps: must be positive, but got {config['trainer']['max_steps']}."

    for words in (["norm.ep=1"], ["a=[1"], ["seed=1,2"]):
        assert run(*words, "trainer.max_steps=-5", check=check) == 2
        assert errors(capsys)[-1] == "trainer.max_steps: must be positive, but got -5."


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--dry-run", "--dry-run: must be written as a choice: dry_run=true."),
        ("--seed=3", "--seed=3: must be written as a choice: seed=3."),
        ("--attention", "--attention: must be written as a choice: attention=<value>."),
        ("--attention gqa", "--attention gqa: must be written as a choice: attention=gqa."),
    ],
)
def test_a_choice_written_as_a_flag_is_refused_with_the_word(run, capsys, word, sentence):
    assert run(*word.split()) == 2
    assert errors(capsys) == [sentence]


def test_one_run_in_hydras_own_words_is_one_run(run):
    assert run("hydra.mode=RUN", "seed=3") == 0
    assert run.jobs[0].number is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["debug.seed=3"],
            "debug.seed: must be written without 'debug', as seed=..., because debug chooses a preset, whose "
            "values are changed where they stand in the config.",
        ),
        (
            ["-m", "seed=interval(0,1)"],
            "interval(...): must be values that are written out, as in optimizer.lr=1e-3,3e-4, because Hydra's own "
            "sweeper takes no intervals. A plugin may, such as hydra/sweeper=optuna.",
        ),
        (
            ["-m", "sweep=attention,./mine.yaml"],
            "sweep=attention,./mine.yaml: must name one sweep, or a list of several: sweep=[one,./two.yaml].",
        ),
        (["plugins=json"], "plugins: must be a list, as in plugins=[json], but got 'json'."),
        (["rerun="], "rerun: must be the folder of a run, but got ''."),
        (["hydra.sweeper.foo=3"], "hydra.sweeper.foo: Hydra has no such value."),
    ],
)
def test_words_about_presets_and_about_hydra(run, capsys, words, sentence):
    assert run(*words) == 2
    assert errors(capsys) == [sentence]


def test_names_and_values_that_are_wrong_come_in_one_report(run, capsys):
    assert run("attention=gqqa", "optimizer.lr=fast", "seed=1,2", "norm.epps=3", "a=[1") == 2
    said = " ".join(errors(capsys))
    for path in ("a=[1:", "attention: no block", "optimizer.lr: must be a number", "seed: must be one", "norm.epps: "):
        assert path in said


# Status and folders -----------------------------------------------------------------------------------------------


def test_the_status_of_a_job_is_the_status_of_the_program(run, capsys):
    def fails(one: Job) -> Record:
        raise DataError("data.path: there is no file 'x'.")

    assert run(job=fails) == 3
    assert errors(capsys) == ["data.path: there is no file 'x'."]
    assert run(job=lambda one: one.record(status=DIVERGED)) == 76


def test_runs_never_share_a_folder(run):
    for _ in range(3):
        assert run("name=same", job=lambda one: (one.folder / "kept").touch() or one.record()) == 0
    assert sorted(f.name for f in Path("runs").iterdir()) == ["same", "same-2", "same-3"]
    first, second = reserve(Path("runs"), ""), reserve(Path("runs"), "")
    assert first != second


def test_nothing_is_left_of_a_run_that_left_nothing(run, capsys):
    assert run() == 0
    assert run("mask=full") == 2
    assert run("-m", "mask=full,window") == 1
    assert list(Path("runs").iterdir()) == []


def test_the_store_of_options_is_as_it_was(run):
    before = ConfigStore.instance().repo
    run()
    assert ConfigStore.instance().repo is before


# Plugins, reruns, secrets -----------------------------------------------------------------------------------------

PLUGIN = '''
"""Nothing."""
from blocks.ffn.mlp import Mlp
from registry import register


@register("ffn/mine_{number}")
class Mine(Mlp):
    """Mine."""
'''


def test_a_plugin_is_an_option_with_choices(run):
    Path("mine_1.py").write_text(PLUGIN.format(number=1), encoding="utf-8")
    assert run("plugins=[./mine_1.py]", "ffn=mine_1", "ffn.d_ff=64") == 0
    assert run.model["decoder"]["layers"][0]["ffn"]["d_ff"] == 64
    assert run.jobs[0].plugins == [str(Path("mine_1.py").absolute())]


def test_a_preset_brings_its_plugins_unless_a_word_names_others(run, capsys):
    Path("mine_3.py").write_text(PLUGIN.format(number=3), encoding="utf-8")
    Path("mine.yaml").write_text("plugins: [./mine_3.py]\nffn: mine_3\n", encoding="utf-8")
    assert run("experiment=./mine.yaml") == 0
    assert run.of("ffn") == ["mine_3"] * 4
    assert run.jobs[0].plugins == [str(Path("mine_3.py").absolute())]
    Path("other.yaml").write_text("plugins: [./nowhere.py]\n", encoding="utf-8")
    assert run("experiment=./other.yaml") == 2
    assert run("experiment=./other.yaml", "plugins=[]") == 0


def test_a_plugin_that_is_not_there_is_said(run, capsys):
    assert run("plugins=[./nowhere.py]", "ffn=x") == 2
    assert errors(capsys) == [f"plugins: there is no file './nowhere.py' ({Path('nowhere.py').absolute()})."]


def recorded(folder: Path, **record: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_run_can_be_repeated_with_its_groups_and_types(run):
    words = ["attention=gqa", "attention.n_kv_heads=1", "decoder/mixer=lstm", "optimizer.lr=1e-4", "seed=3"]
    folder = recorded(Path("before"), overrides=words)
    assert run(f"rerun={folder}", "seed=4", "decoder.mixer=attention") == 0
    assert run.jobs[0].spec["seed"] == 4
    assert run.jobs[0].spec["optimizer"]["lr"] == 1e-4
    assert run.of("mixer") == ["gqa"] * 4
    assert run.jobs[0].overrides == [
        "attention=gqa",
        "attention.n_kv_heads=1",
        "optimizer.lr=1e-4",
        "seed=4",
        "decoder.mixer=attention",
    ]


def test_a_run_brings_its_plugins(run):
    Path("mine_2.py").write_text(PLUGIN.format(number=2), encoding="utf-8")
    assert run("plugins=[./mine_2.py]", "ffn=mine_2") == 0
    job = run.jobs[0]
    folder = recorded(Path("before"), overrides=job.overrides, plugins=job.plugins)
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    assert run(f"rerun=../{folder}") == 0
    assert run.of("ffn") == ["mine_2"] * 4


def test_a_rerun_of_nothing_is_said(run, capsys):
    assert run("rerun=nowhere") == 4
    (line,) = errors(capsys)
    assert line.startswith("rerun: must be the folder of a run, but nowhere/run.json can not be read (")


@pytest.mark.parametrize(
    "word", ["hydra.sweeper._target_=os.system", "data._target_=os.system", "hydra.searchpath=[x]"]
)
def test_a_rerun_of_a_program_is_refused(run, capsys, word):
    folder = recorded(Path("before"), overrides=[word])
    assert run(f"rerun={folder}") == 2
    assert errors(capsys) == [
        f"rerun: before/run.json must hold choices, but it holds {word!r}, which can run any program."
    ]


def test_a_value_of_the_environment_is_used_and_not_written(run, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    assert run("data=text", "data.path=${oc.env:SECRET}", "+again=${data.path}", "name=${data.path}") == 2
    assert run("data=text", "data.path=${oc.env:SECRET}/x", "name=${data.path}") == 0
    job = run.jobs[0]
    assert job.spec["data"]["path"] == "hunter2/x"
    assert job.written["data"]["path"] == "${oc.env:SECRET}/x"
    assert job.written["name"] == "${data.path}"
    assert "hunter2" not in json.dumps([job.written, job.config, job.overrides])
    assert type(job.spec["data"]["path"]) is str


def test_a_value_that_is_not_there_is_said(run, capsys):
    assert run("data=text", "data.path=${oc.env:NOT_THERE}") == 2
    assert errors(capsys) == ["data.path: must be a value, but Environment variable 'NOT_THERE' not found."]


def test_specs_and_configs_are_plain_containers(run):
    assert run() == 0
    job = run.jobs[0]
    assert json.loads(json.dumps([job.spec, job.written, job.config])) == [job.spec, job.written, job.config]


# Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["objective=next_tokn", "stack=plan"],
            [
                "objective: no block is named 'next_tokn'. Did you mean 'next_token'? There are: masked_token, "
                "next_token, span_corruption. A block of your own must be listed in plugins=[...].",
                "stack: no block is named 'plan'. Did you mean 'plain'?",
            ],
        ),
        (["sweep=nope"], ["sweep: no sweep is named 'nope'. There are: attention."]),
        (["debug=tinny"], ["debug: no preset is named 'tinny'. Did you mean 'tiny'? There are: tiny."]),
        (
            ["attention"],
            ["attention: must be written as path=value, as in attention=gqa. A value with spaces goes in quotes."],
        ),
        (
            ["--experimental-rerun=x"],
            ["--experimental-rerun: must be one of the flags --help, "],
        ),
        (["-position=alibi"], ["-position=alibi: must be written without the dash: position=alibi."]),
        (["--multi"], ["--multi: must be one of the flags "]),
        (["--config-name=x"], ["--config-name: must be one of the flags "]),
        (["--cfg=job", "--resolve"], ["--resolve: must be one of the flags "]),
        (["~data"], ["~data: must not take out what every run has. Choose another: data=..."]),
        (["~callbacks.sample=x"], ["~callbacks.sample=x: must be written without a value, as ~callbacks.sample"]),
        (["callbacks={}"], ["callbacks: {} must have an effect, but it chooses nothing."]),
        (["attention={}"], ["attention: {} must have an effect, but it chooses nothing."]),
        (["-m", "seed=range(0,1,0)"], ["seed=range(0,1,0): must be written as path=value, but it can not be read "]),
        (["-m", "seed=range(5,1)"], ["seed=range(5,1): must stand for some value, but it stands for none."]),
        (["-m", "rerun=a,b"], ["rerun=a,b: must name one run in every job."]),
        (
            ["norm=[rms,layer]"],
            ["norm: must be one block, but got a list: ['rms', 'layer']. A pattern says which layer has which."],
        ),
        (
            ["data._target_=os.system"],
            ["data._target_=os.system: a config must name registered blocks, but this names a Python object."],
        ),
        (["norm=rms", "norm=layer"], ["norm: must be chosen once, but is chosen 2 times."]),
        (["norm.ep=1"], ["norm.ep: rms has no choice 'ep'. Did you mean 'eps'? It has: eps."]),
        (["optimizer.lr=fast"], ["optimizer.lr: must be a number, but got 'fast'."]),
        (["lr=1e-3"], ["lr: nothing in a config is called 'lr'. Did you mean 'optimizer.lr'?"]),
        (["callbacks=[early]"], ["callbacks.early: no block is named 'early'."]),
        (["plugins=a,b", "-m"], ["plugins=a,b: must be the same in every job: plugins=[one,two], in brackets."]),
        (
            ["decoder.layers.4.ffn=mlp"],
            ["decoder.layers.4: must be a layer of decoder, 0 to 3, but got '4'."],
        ),
        (
            ["encoder.n_layers=2"],
            [
                "encoder: decoder_only must not be given one, but it is: it has decoder. "
                "Models with that stack: encoder_decoder, encoder_only."
            ],
        ),
    ],
)
def test_a_mistake_is_said_without_a_traceback(run, capsys, words, lines):
    assert run(*words) == 2
    said = errors(capsys)
    for line in lines:
        assert any(one.startswith(line) for one in said), said
    assert not any("Traceback" in one or " +" in one for one in said)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("seed=[1", "'[' stands alone. Put quotes around a value with spaces or special signs: 'seed=\"[1\"'."),
        ("name=it's", "the quote ' stands alone. Put quotes "),
        ("attention=gqa,", "a value is missing beside a comma. Put quotes "),
        ("attention=mha,,gqa", "a value is missing beside a comma. Put quotes "),
        ("norm=chioce(rms,layer)", "no function is named 'chioce'. Did you mean 'choice'? There are: int, "),
        ("norm=choice()", "choice() can not be evaluated: empty choice is not legal."),
    ],
)
def test_a_word_that_can_not_be_read_is_said(run, capsys, word, reason):
    assert run(word) == 2
    (line,) = errors(capsys)
    assert line.startswith(f"{word}: must be written as path=value, but {reason}")


def test_a_word_that_can_not_be_read_is_not_missed_elsewhere(run, capsys):
    assert run("data=text", "data.path=日本.txt") == 2
    (line,) = errors(capsys)
    assert line.startswith("data.path=日本.txt: must be written as path=value, but ")


@pytest.mark.parametrize(
    "words", [["callbacks=[checkpoint]", "callbacks.sample=null"], ["callbacks=[]", "callbacks.checkpoint=null"]]
)
def test_what_a_list_leaves_out_is_not_taken_out_again(run, capsys, words):
    assert run(*words) == 2
    said = f"{words[1].removesuffix('=null')}: must not be taken out beside {words[0]}, which names all there are."
    assert errors(capsys) == [said]


def test_only_what_is_there_is_taken_out(run, capsys):
    Path("mine.yaml").write_text("callbacks: {checkpoints: null}\n", encoding="utf-8")
    said = "null must take out what is there, but {} has no {!r}. Did you mean {!r}? There are: {}."
    callbacks = "checkpoint, progress, sample"
    for words, sentence in (
        (["callbacks.checkpoints=null"], said.format("callbacks", "checkpoints", "checkpoint", callbacks)),
        (["experiment=./mine.yaml"], said.format("callbacks", "checkpoints", "checkpoint", callbacks)),
        (["logger.cvs=null"], said.format("logger", "cvs", "csv", "csv")),
    ):
        assert run(*words) == 2
        (line,) = errors(capsys)
        assert line.endswith(f": {sentence}")


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_not_every_generator_takes(run, capsys, seed):
    assert run(f"seed={2**63 - 1}") == 0
    assert run(f"seed={seed}") == 2
    assert errors(capsys) == [f"seed: must be a whole number from 0 to 9223372036854775807, but got {seed}."]


@pytest.mark.parametrize(("family", "slot"), [("linear", "mixer"), ("callback", "callbacks")])
def test_the_name_of_a_family_is_answered_with_its_slot(run, capsys, family, slot):
    assert run(f"{family}=some") == 2
    said = f"{family}: nothing in a config is called {family!r}: blocks of this family go into {slot}."
    assert errors(capsys) == [said]


@pytest.mark.parametrize("word", ["name=", "ckpt_path="])
def test_an_empty_text_names_nothing(run, capsys, word):
    assert run(word) == 2
    assert errors(capsys) == [f"{word[:-1]}: must not be empty; leave it out, or say null, but got ''."]


def test_the_config_is_shown_and_what_is_wrong_with_it(run, capsys):
    assert run("--cfg", "job", "attention=gpa", "seed=abc") == 2
    shown = capsys.readouterr()
    assert "name: gpa" in shown.out
    assert [line.partition(":")[2].partition(":")[0] for line in shown.err.splitlines()] == [" seed", " attention"]


def test_what_is_wrong_in_many_layers_is_said_once():
    said = [
        "attention (decoder.layers.0.mixer): too wide.",
        "norm (decoder.layers.0.residual.norm): too narrow.",
        "attention (decoder.layers.2.mixer): too wide.",
        "attention (decoder.layers.3.mixer): too wide.",
        "decoder.layers.1.mixer: too long.",
    ]
    assert together(said) == [
        "attention (in layers 0, 2 and 3 of decoder): too wide.",
        "norm (in layer 0 of decoder): too narrow.",
        "decoder.layers.1.mixer: too long.",
    ]


# What shows without running ---------------------------------------------------------------------------------------


def test_help_names_every_option(run, capsys):
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert as_started("python -m registry list") in said  # the interpreter's own path, where the shell finds another
    assert "decoder_only, encoder_decoder, encoder_only" in said


def test_the_config_can_be_shown_with_every_default(run, capsys):
    assert run("--cfg", "job", "attention=gqa") == 0
    assert "attention:\n  name: gqa\n  n_heads: 8\n  n_kv_heads: 2\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("attention=g", "attention=gqa"),
        ("attention=gqa attention.n_kv", "attention.n_kv_heads="),
        ("decoder/mi", "decoder/mixer="),
        ("model=encoder_decoder encoder.n_l", "encoder.n_layers="),
        ("-m attention=mha,g", "attention=mha,gqa"),
        ("-m seed=1 norm=rms,", "norm=rms,layer"),
    ],
)
def test_words_are_completed(run, capsys, monkeypatch, typed, completed):
    monkeypatch.setenv("COMP_LINE", f"python train.py {typed}")
    assert run("-sc", "query=bash") == 0
    assert completed in capsys.readouterr().out.split()


def test_completion_for_a_shell_that_has_none_is_refused(run, capsys):
    assert run("-sc", "install=tcsh") == 2
    assert errors(capsys) == [
        "-sc install=tcsh: must be install, uninstall or query of one of bash, fish, zsh, as in -sc install=bash, "
        "but got 'tcsh'."
    ]


def test_the_version_is_ours(run, capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("blockwright ")


def test_nothing_heavy_is_imported_to_show_help(tmp_path):
    code = (
        "import sys; from registry.compose import launch; launch(None, None, ['--help']); "
        "sys.exit(bool({'torch', 'lightning', 'blocks'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_plugin_of_a_job_can_be_loaded_again(run):
    Path("mine_3.py").write_text(PLUGIN.format(number=3), encoding="utf-8")
    assert run("plugins=[./mine_3.py]") == 0
    assert load(run.jobs[0].plugins) == run.jobs[0].plugins
