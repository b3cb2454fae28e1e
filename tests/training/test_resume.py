"""Going on from a checkpoint: what was learned stays, new choices take effect or are refused, nothing is lost."""

import csv
import hashlib
import os
import re
import signal

import lightning as L
import pytest
import torch

from registry import REGISTRY, neighbours, plugins
from registry.errors import STOPPED, CheckpointError, ConfigError
from training.callback.early_stopping import EarlyStopping
from training.checkpoint import load
from training.generate import load_run
from training.results import read_record
from training.resume import changes, take_up
from training.run import run


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


def rows(folder, column) -> dict[int, float]:
    """A column of metrics.csv, by step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}


def same_weights(a, b) -> bool:
    a, b = (load(last(folder))["state_dict"] for folder in (a, b))
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def stopped(make_job, hook):
    """A run that a signal stops behind a step; returns its folder."""

    def stop(step, name="part", **choices):
        def end(trainer, task):
            if trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

        hook["end"] = end
        job = make_job(name, **{"callbacks": ["checkpoint", "hook"], **choices})
        assert run(job).exit_status == STOPPED
        hook.clear()
        return job.folder

    return stop


@pytest.fixture
def trained(make_job):
    """A run of eight steps; returns its checkpoint."""
    job = make_job("first")
    run(job)
    return last(job.folder)


# New choices ----------------------------------------------------------------------------------------------------------


def optimizer_at_start(make_job, hook, path, **choices):
    """The optimizer and the task of a resumed run, in front of its first step."""
    seen = {}

    def start(trainer, task):
        if not seen:
            (optimizer,) = trainer.optimizers
            groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
            moments = [{k: v.clone() for k, v in state.items()} for state in optimizer.state_dict()["state"].values()]
            seen.update(groups=groups, moments=moments, step=trainer.global_step)

    hook["start"] = start
    choices["trainer"] = {"max_steps": 12, **choices.get("trainer", {})}
    run(make_job("second", callbacks=["hook"], ckpt_path=str(path), **choices))
    return seen


def test_what_the_optimizer_is_told_anew_takes_effect_and_what_it_has_learned_stays(make_job, hook, trained):
    told = {"lr": 0.5, "weight_decay": 0.25, "beta1": 0.8, "eps": 1e-6}
    seen = optimizer_at_start(make_job, hook, trained, optimizer=told)
    assert [g["weight_decay"] for g in seen["groups"]] == [0.25, 0.0]
    assert all((g["lr"], g["betas"], g["eps"]) == (0.5, (0.8, 0.95), 1e-6) for g in seen["groups"])
    saved = load(trained)["optimizer_states"][0]["state"].values()
    for here, before in zip(seen["moments"], saved, strict=True):
        assert here["step"] == 8
        assert all(torch.equal(here[name], before[name]) for name in ("exp_avg", "exp_avg_sq"))


def test_momentum_may_be_chosen_anew(make_job, hook):
    first = make_job("first", optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.0})
    run(first)
    choices = {"name": "sgd", "lr": 0.2, "momentum": 0.9, "nesterov": True}
    seen = optimizer_at_start(make_job, hook, last(first.folder), optimizer=choices)
    assert all((g["lr"], g["momentum"], g["nesterov"]) == (0.2, 0.9, True) for g in seen["groups"])


def test_what_an_optimizer_keeps_beside_its_choices_stays():
    saved = {"state": {}, "param_groups": [{"params": [0], "lr": 0.01, "count": 7, "decay": 0.1}]}
    before, told = {"lr": 1.0, "count": 0, "decay": 0.1}, {"lr": 1.0, "count": 0, "decay": 0.2}
    assert take_up(saved, [told], [before])["param_groups"] == [{"params": [0], "lr": 0.01, "count": 7, "decay": 0.2}]


def test_another_division_of_the_parameters_is_refused():
    sentence = r"^optimizer: must divide the parameters as it did in the checkpoint, in 1 groups, but got 2\.$"
    with pytest.raises(CheckpointError, match=sentence):
        take_up({"state": {}, "param_groups": [{"params": [0]}]}, [{}, {}], [])


def test_groups_of_other_sizes_are_refused():
    """As those of a checkpoint from before a parameter had another role: its moments would be another one's."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2)) for _ in range(2)])
    sentence = (
        r"^optimizer: must divide the parameters as it did in the checkpoint, in groups of \[3\], but got \[2\]\. "
    )
    with pytest.raises(CheckpointError, match=sentence):
        take_up({"state": {}, "param_groups": [{"params": [0, 1, 2]}]}, [{}], [], optimizer)


def test_a_schedule_is_what_is_chosen_now_from_the_very_next_step_on(make_job, hook):
    """A cosine over 8 steps, taken up as one over 16: each step has the rate it has in a run of 16 from the start."""
    cosine = {"schedule": {"name": "cosine", "warmup": 2}, "callbacks": ["checkpoint", "hook"]}
    rates = {}

    def start(trainer, task):
        rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    hook["start"] = start
    run(make_job("long", **cosine, trainer={"max_steps": 16}))
    whole = rates.copy()
    first = make_job("first", **cosine)
    run(first)
    assert rates[7] < whole[7]
    rates.clear()
    run(make_job("second", **cosine, trainer={"max_steps": 16}, ckpt_path=str(last(first.folder))))
    assert rates == {step: rate for step, rate in whole.items() if step >= 8}


def test_seed_batch_size_precision_and_objective_take_effect(make_job, hook, capsys):
    first = make_job("first", model={"name": "encoder_only", "d_model": 32, "max_length": 32}, encoder={"n_layers": 1})
    run(first)
    seen = {}

    def end(trainer, task):
        seen.update(precision=trainer.precision, rate=task.objective.rate, tokens=int(task.step_tokens))

    hook["end"] = end
    capsys.readouterr()
    second = make_job(
        "second",
        model=first.config["model"],
        encoder={"n_layers": 1},
        seed=5,
        data={"batch_size": 2},
        objective={"name": "masked_token", "rate": 0.5},
        trainer={"max_steps": 10, "precision": "bf16-mixed", "val_check_interval": 2},
        callbacks=["hook"],
        ckpt_path=str(last(first.folder)),
    )
    record = run(second)
    assert seen == {"precision": "bf16-mixed", "rate": 0.5, "tokens": 2 * 32}
    assert [v["step"] for v in record.metrics["validations"]] == [4, 8, 10]
    printed = capsys.readouterr().out
    assert "resumed at step 8, with other choices:\n" in printed
    for line in (
        "seed: 5, was 0",
        "data.batch_size: 2, was 4",
        "objective.rate: 0.5, was 0.15",
        "trainer.max_steps: 10, was 8",
        "trainer.precision: bf16-mixed, was 32-true",
        "trainer.val_check_interval: 2, was 4",
    ):
        assert f"  {line}\n" in printed


def test_another_seed_gives_other_batches(make_job, trained):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(make_job(name, seed=seed, trainer={"max_steps": 10}, ckpt_path=str(trained)))
    folder = trained.parents[2]
    assert same_weights(folder / "a", folder / "b")
    assert not same_weights(folder / "a", folder / "c")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_any_precision_goes_on_from_any(make_job, trained, precision):
    record = run(make_job("second", trainer={"max_steps": 10, "precision": precision}, ckpt_path=str(trained)))
    assert (record.status, record.metrics["steps"]) == ("done", 10)


def test_nothing_is_told_where_nothing_is_changed(make_job, stopped, capsys):
    folder = stopped(6)
    capsys.readouterr()
    run(make_job("rest", callbacks=["checkpoint", "hook"], ckpt_path=str(last(folder))))
    assert "resumed at step 6\n" in capsys.readouterr().out


def test_a_choice_is_named_by_its_path():
    before = {"name": "model/a", "layers": [{"name": "layer/x", "dropout": 0.1}], "size": 3}
    here = {"name": "model/a", "layers": [{"name": "layer/x", "dropout": 0.2}], "tie": True, "size": 3}
    assert list(changes(before, here, "model")) == [
        "model.layers[0].dropout: 0.2, was 0.1",
        "model.tie: True, was None",
    ]
    assert list(changes({"name": "data/a", "n": 1}, {"name": "data/b"}, "data")) == ["data: data/b, was data/a"]


# Refusals -------------------------------------------------------------------------------------------------------------


def refuses(job, kind, sentence):
    with pytest.raises(kind) as refusal:
        run(job)
    assert str(refusal.value) == sentence
    assert list(job.folder.iterdir()) == []


def test_another_optimizer_is_refused(make_job, trained):
    refuses(
        make_job("second", trainer={"max_steps": 12}, optimizer={"name": "sgd"}, ckpt_path=str(trained)),
        CheckpointError,
        f"optimizer: must be the one that {trained} was saved with, whose state it would take up, "
        "but got optimizer/sgd and not optimizer/adamw.",
    )


def test_fewer_steps_than_there_were_are_refused(make_job, trained):
    refuses(
        make_job("second", trainer={"max_steps": 5}, ckpt_path=str(trained)),
        ConfigError,
        f"trainer: must allow for more than the 8 steps that {trained} has behind it, but got 5. "
        "Set trainer.max_steps=16, say.",
    )


def test_another_vocabulary_of_the_same_size_is_refused(make_job, text_file, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text(encoding="utf-8").replace("q", "Q"), encoding="utf-8")
    first = make_job("first", tokenizer={"name": "char"})
    run(first)
    path = last(first.folder)
    refuses(
        make_job("second", tokenizer={"name": "char"}, data={"path": str(other)}, ckpt_path=str(path)),
        CheckpointError,
        f"tokenizer: must give the ids that the model of {path} has learned, but it is another one, or has learned "
        "another vocabulary from other data.",
    )


def test_another_metric_starts_its_best_anew():
    first, second = EarlyStopping(), EarlyStopping(mode="max")
    first.best = 3.0
    second.load_state_dict(first.state_dict())
    assert second.best is None


# A validation that was due --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_validation_that_was_due_is_made_up(make_job, stopped, step):
    """In the middle of an epoch, at its end, and behind the last step of all, where nothing is left to train."""
    names = {"callbacks": ["checkpoint", "hook"], "trainer": {"max_steps": 12, "limit_train_batches": 8}}
    whole = make_job("whole", **names)
    run(whole)
    part = stopped(step, **names)
    assert max(rows(part, "val/loss"), default=0) == step - 4
    rest = make_job("rest", **names, ckpt_path=str(last(part)))
    record = run(rest)
    assert (record.status, record.metrics["steps"]) == ("done", 12)
    assert rows(part, "val/loss") | rows(rest.folder, "val/loss") == rows(whole.folder, "val/loss")
    assert [v["step"] for v in record.metrics["validations"]] == [4, 8, 12]
    assert record.metrics["validations"] == read_record(whole.folder).metrics["validations"]
    assert same_weights(whole.folder, rest.folder)


def test_a_run_that_stops_behind_a_validation_it_made_up_does_not_make_it_twice(make_job, stopped, monkeypatch):
    """At the end of an epoch, where Lightning counts epochs while it takes a checkpoint up."""
    names = {"callbacks": ["checkpoint", "hook"]}
    names["trainer"] = {"max_steps": -1, "max_epochs": 3, "limit_train_batches": 4, "val_check_interval": 4}
    whole = make_job("whole", **names)
    run(whole)
    part = stopped(8, **names)

    from training.task import SequenceTask

    step = SequenceTask.validation_step

    def interrupted(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(SequenceTask, "validation_step", step)
        step(self, batch, batch_idx)

    monkeypatch.setattr(SequenceTask, "validation_step", interrupted)
    again = make_job("again", **names, ckpt_path=str(last(part)))
    record = run(again)
    assert (record.status, record.metrics["steps"]) == ("stopped", 8)
    assert list(rows(again.folder, "val/loss")) == [8]
    rest = make_job("rest", **names, ckpt_path=str(last(again.folder)))
    record = run(rest)
    assert (record.status, record.metrics["steps"]) == ("done", 12)
    assert list(rows(rest.folder, "val/loss")) == [12]
    assert same_weights(whole.folder, rest.folder)


# Signals --------------------------------------------------------------------------------------------------------------


def test_a_signal_between_accumulated_batches_waits_for_the_step(make_job, hook):
    names = {"callbacks": ["checkpoint", "hook"], "trainer": {"max_steps": 6, "accumulate_grad_batches": 3}}
    names["trainer"]["val_check_interval"] = 9
    whole = make_job("whole", **names)
    run(whole)
    batches = []

    def end(trainer, task):
        batches.append(trainer.global_step)
        if len(batches) == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    hook["end"] = end
    part = make_job("part", **names)
    record = run(part)
    assert (record.status, record.metrics["steps"], len(batches)) == ("stopped", 3, 9)
    hook.clear()
    rest = make_job("rest", **names, ckpt_path=str(last(part.folder)))
    run(rest)
    assert same_weights(whole.folder, rest.folder)


def test_a_second_signal_ends_at_once_and_says_what_is_saved(make_job, hook):
    def end(trainer, task):
        if trainer.global_step == 6:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    hook["end"] = end
    job = make_job(callbacks=["checkpoint", "hook"])
    record = run(job)
    assert (record.exit_status, record.reason) == (STOPPED, "stopped by SIGINT; the last step that was saved is 4")
    assert load(last(job.folder))["global_step"] == 4


def test_a_signal_before_anything_was_saved_says_so(make_job, hook):
    hook["end"] = lambda trainer, task: os.kill(os.getpid(), signal.SIGINT)
    record = run(make_job(callbacks=["hook"]))
    assert record.reason == "stopped by SIGINT, before anything was saved"


def test_ctrl_c_while_a_checkpoint_is_written_lets_it_be_written(make_job, monkeypatch):
    from training.checkpoint import Hashed

    write, asked = Hashed.write, []

    def interrupted(self, data):
        if not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return write(self, data)

    monkeypatch.setattr(Hashed, "write", interrupted)
    job = make_job()
    record = run(job)
    assert (record.exit_status, record.reason) == (STOPPED, "stopped by SIGINT")
    assert load(last(job.folder))["global_step"] == 4
    assert not list((job.folder / "checkpoints").glob(".*"))


def test_a_second_ctrl_c_while_a_checkpoint_is_written_leaves_the_one_before(make_job, monkeypatch):
    from training.checkpoint import Hashed

    write, asked = Hashed.write, []

    def interrupted(self, data):
        asked.append(True)
        if (last(job.folder)).exists():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return write(self, data)

    monkeypatch.setattr(Hashed, "write", interrupted)
    job = make_job()
    record = run(job)
    assert (record.exit_status, record.reason) == (STOPPED, "stopped by SIGINT; the last step that was saved is 4")
    assert load(last(job.folder))["global_step"] == 4
    assert not list((job.folder / "checkpoints").glob(".*"))


# Plugins --------------------------------------------------------------------------------------------------------------


PLUGIN = '''
import enum
from dataclasses import dataclass
from pathlib import Path

from blocks.contracts import Norm
from registry import register
import torch
from torch import nn


class Kind(enum.Enum):
    A = "a"


@dataclass(frozen=True)
class Band:
    low: float = 0.5


@register("norm/odd_choices")
class OddChoices(Norm):
    """Multiplies by a learned gain; its choices are not plain."""

    def __init__(
        self, d_model, /, *, kind: Kind = Kind.A, band: Band = Band(), place: Path = Path("x"),
        names: frozenset[str] = frozenset({"a"}), bound: float = float("inf")
    ):
        super().__init__(d_model)
        assert (kind, place, names, bound) == (Kind.A, Path("x"), frozenset({"a"}), float("inf"))
        self.gain = nn.Parameter(torch.full((d_model,), band.low))

    def forward(self, x):
        return x * self.gain
'''


def test_a_run_of_a_plugin_with_odd_choices_goes_on_and_another_source_is_said(make_job, tmp_path, monkeypatch, capsys):
    file = tmp_path / "norm_of_odd_choices.py"
    file.write_text(PLUGIN, encoding="utf-8")
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY._entries))  # it is gone after the test
    loaded = plugins.load([str(file)])
    choices = {"norm": {"name": "odd_choices", "band": {"low": 0.25}}}
    first = make_job("first", **choices)
    first.plugins = loaded
    run(first)
    record = read_record(first.folder)
    assert record.spec == first.spec
    assert record.plugin_sources == {str(file): hashlib.sha256(PLUGIN.encode()).hexdigest()}
    assert load(last(first.folder))["blockwright"]["plugin_sources"] == record.plugin_sources
    load_run(first.folder)

    further = {**choices, "ckpt_path": str(last(first.folder)), "trainer": {"max_steps": 10}}
    second = make_job("second", **further)
    second.plugins = loaded
    assert run(second).exit_status == 0
    assert "plugins:" not in capsys.readouterr().out

    monkeypatch.setitem(neighbours.DIGESTS, str(file), "0" * 64)
    third = make_job("third", **further)
    third.plugins = loaded
    assert run(third).exit_status == 0
    sentence = f"plugins: the source of {file} is not what was recorded: its SHA-256 is {'0' * 12}, and was "
    assert capsys.readouterr().out.count(sentence) == 1


def test_a_state_that_no_checkpoint_can_hold_is_refused_before_the_first_step(make_job, tmp_path):
    class Keeps(L.Callback):
        """Keeps a path."""

        def on_train_start(self, trainer, task):
            raise AssertionError("training began")

        def state_dict(self):
            return {"place": tmp_path}

    REGISTRY.register("callback/keeps", override=True)(Keeps)
    try:
        with pytest.raises(CheckpointError, match=re.escape(f"Keeps / place holds {tmp_path!r}, a ")):
            run(make_job(callbacks=["checkpoint", "keeps"]))
    finally:
        del REGISTRY._entries["callback/keeps"]
