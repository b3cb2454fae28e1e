"""A run from its spec to its record: what it leaves, how it ends, how it goes on, what it refuses first."""

import csv
import json
import os
import re
import signal

import pytest
import torch

from blocks.position.dependency import Dependency
from registry import REGISTRY
from registry.errors import DIVERGED, STOPPED, CheckpointError, ConfigError, DataError, MachineError
from training.checkpoint import load
from training.meter import DivergedError
from training.objective.masked_token import MaskedToken
from training.results import read_record
from training.run import check_trees, planned_steps, prepare, run, with_validations


def losses(folder) -> dict[int, float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def weights(folder, which="last"):
    return load(folder / "checkpoints" / f"{which}.ckpt")["state_dict"]


def test_a_run_learns_and_leaves_its_record(make_job, capsys):
    job = make_job(trainer={"max_steps": 40})
    record = run(job)
    assert (record.status, record.exit_status) == ("done", 0)
    assert read_record(job.folder) == record
    assert record.metrics["steps"] == 40
    assert record.metrics["best"]["val/loss"] < 4.5 < torch.tensor(260.0).log()
    assert record.metrics["best"]["val/bits_per_byte"] == pytest.approx(
        record.metrics["best"]["val/loss"] / 0.6931471805599453, rel=1e-3
    )
    assert record.metrics["tokens"] == 40 * 4 * 32
    assert record.metrics["tokens_per_second"] > 0
    assert record.data["unigram_entropy"] > 0
    assert len(record.data["fingerprint"]) == 64
    assert record.model["parameters"] == sum(w.numel() for w in weights(job.folder).values()) - 260 * 32  # tied
    assert record.files == {
        "best": "checkpoints/best.ckpt",
        "last": "checkpoints/last.ckpt",
        "metrics": "metrics.csv",
        "config": "config.yaml",
    }
    assert all((job.folder / file).exists() for file in record.files.values())
    printed = capsys.readouterr().out
    assert "unigram entropy" in printed
    assert "python -m training.generate" in printed


def test_the_same_seed_is_the_same_run_and_another_is_another(make_job):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(make_job(name, seed=seed))
    folder = make_job("a").folder.parent
    a, b, c = (weights(folder / name) for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_a_dry_run_stops_after_the_table_and_writes_nothing(make_job, capsys):
    job = make_job(dry_run=True)
    record = run(job)
    assert record.exit_status == 0
    assert list(job.folder.iterdir()) == []
    printed = capsys.readouterr().out
    assert re.search(r"decoder +mha +[\d.]+ k", printed)
    assert "validation at" not in printed


def test_the_last_step_is_validated_wherever_the_interval_stands(make_job):
    record = run(make_job(trainer={"max_steps": 6, "val_check_interval": 4}))
    assert [v["step"] for v in record.metrics["validations"]] == [4, 6]
    record = run(make_job("long", trainer={"max_steps": 4, "val_check_interval": 100}))
    assert [v["step"] for v in record.metrics["validations"]] == [4]


def test_epochs_are_counted_where_steps_are_not(make_job):
    job = make_job(trainer={"max_steps": -1, "max_epochs": 2, "limit_train_batches": 3, "val_check_interval": 1.0})
    record = run(job)
    assert record.metrics["steps"] == 6
    assert [v["step"] for v in record.metrics["validations"]] == [3, 6]


def test_accumulated_batches_are_one_step_and_average(make_job):
    record = run(make_job(trainer={"max_steps": 3, "accumulate_grad_batches": 4, "val_check_interval": 2}))
    assert record.metrics["steps"] == 3
    assert [v["step"] for v in record.metrics["validations"]] == [2, 3]
    assert record.metrics["tokens"] == 3 * 4 * 4 * 32


def test_the_gradient_is_clipped_in_front_of_a_fused_optimizer(make_job, hook):
    norms = []
    hook["end"] = lambda trainer, task: norms.append(
        (float(task.grad_norm), torch.stack([p.grad.norm() for p in task.parameters() if p.grad is not None]).norm())
    )
    for precision in ("32-true", "bf16-mixed"):
        run(make_job(precision, callbacks=["hook"], trainer={"gradient_clip_val": 0.1, "precision": precision}))
    assert len(norms) == 16
    for before, after in norms:
        assert before > 0.1
        assert float(after) == pytest.approx(0.1, rel=1e-3)


def test_a_machine_that_has_srun_is_no_reason_for_a_warning(make_job, tmp_path, monkeypatch):
    """A login node of a cluster has it on its PATH; Lightning's advice is not for a run that was started by hand."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    assert run(make_job(trainer={"max_steps": 1})).status == "done"


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [3, 4, 8])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(make_job, hook, stop):
    """Between validations, on one, and at the end of an epoch: losses and weights are bitwise those of one piece."""
    names = {"callbacks": ["checkpoint", "hook"], "trainer": {"max_steps": 12, "limit_train_batches": 8}}
    names["trainer"]["log_every_n_steps"] = 1
    whole = make_job("whole", **names)
    run(whole)

    def end(trainer, task):
        if trainer.global_step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    hook["end"] = end
    part = make_job("part", **names)
    stopped = run(part)
    assert (stopped.status, stopped.exit_status) == ("stopped", STOPPED)
    assert stopped.reason == "stopped by SIGTERM"
    assert stopped.metrics["steps"] == stop
    assert set(losses(part.folder)) == set(range(1, stop + 1))
    hook.clear()
    resumed = make_job("rest", **names, ckpt_path=str(part.folder / "checkpoints" / "last.ckpt"))
    record = run(resumed)
    assert record.metrics["steps"] == 12
    assert losses(resumed.folder) == {k: v for k, v in losses(whole.folder).items() if k > stop}
    a, b = weights(whole.folder), weights(resumed.folder)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert record.metrics["tokens"] == 12 * 4 * 32


def test_a_finished_run_goes_on_to_more_steps(make_job):
    whole, first = make_job("whole", trainer={"max_steps": 12}), make_job("first", trainer={"max_steps": 8})
    run(whole)
    run(first)
    second = make_job("second", trainer={"max_steps": 12}, ckpt_path=str(first.folder / "checkpoints" / "last.ckpt"))
    record = run(second)
    a, b = weights(whole.folder), weights(second.folder)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [v["step"] for v in record.metrics["validations"]] == [4, 8, 12]


def test_ctrl_c_during_a_validation_ends_behind_it(make_job, hook, monkeypatch):
    from training.task import SequenceTask

    step = SequenceTask.validation_step

    def interrupted(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(SequenceTask, "validation_step", step)
        step(self, batch, batch_idx)

    monkeypatch.setattr(SequenceTask, "validation_step", interrupted)
    job = make_job()
    record = run(job)
    assert (record.status, record.metrics["steps"]) == ("stopped", 4)
    assert [v["step"] for v in record.metrics["validations"]] == [4]
    assert load(job.folder / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_signals_have_their_old_handlers_afterwards(make_job):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    run(make_job(trainer={"max_steps": 2}))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


# Ending badly ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(make_job, hook):
    def start(trainer, task):
        if trainer.global_step == 4:
            next(task.parameters()).data.fill_(float("nan"))

    hook["start"] = start
    job = make_job(callbacks=["checkpoint", "hook"], trainer={"log_every_n_steps": 3})
    with pytest.raises(DivergedError, match=r"^the loss became nan at step 5\.") as ended:
        run(job)
    assert ended.value.status == DIVERGED
    record = read_record(job.folder)
    assert (record.status, record.exit_status) == ("diverged", DIVERGED)
    assert not any(w.isnan().any() for w in weights(job.folder).values())  # nothing broken was saved


def test_a_bug_keeps_its_traceback_and_is_recorded(make_job, hook):
    def end(trainer, task):
        raise RuntimeError("a bug in a block")

    hook["end"] = end
    job = make_job(callbacks=["hook"])
    with pytest.raises(RuntimeError, match="a bug in a block"):
        run(job)
    assert read_record(job.folder).reason == "RuntimeError: a bug in a block"


# Refusals, before anything is written --------------------------------------------------------------------------------


def refuses(job, kind, sentence):
    with pytest.raises(kind) as refusal:
        run(job)
    assert str(refusal.value) == sentence
    assert list(job.folder.iterdir()) == []


def test_a_name_that_lightning_does_not_have(make_job):
    refuses(
        make_job(trainer={"max_stepz": 5}),
        ConfigError,
        "trainer.max_stepz: Lightning's Trainer has no choice 'max_stepz'. Did you mean 'max_steps'?",
    )


def test_a_name_that_something_else_decides(make_job):
    refuses(
        make_job(trainer={"logger": True}),
        ConfigError,
        "trainer.logger: must not be set here, but got True. Use logger=[...].",
    )


def test_a_value_that_lightning_refuses(make_job):
    job = make_job(trainer={"strategy": "fsdp", "accelerator": "cpu"})
    with pytest.raises(ConfigError, match=r"^trainer: .*FSDP"):
        run(job)
    assert list(job.folder.iterdir()) == []


def test_all_that_is_wrong_is_said_at_once(make_job):
    job = make_job(
        trainer={"max_stepz": 5},
        optimizer={"name": "adamw", "lr": -1.0},
        callbacks=[{"name": "early_stopping", "patience": 0}],
        attention={"name": "mha", "n_heads": 5},
    )
    with pytest.raises(ConfigError) as refusal:
        run(job)
    said = str(refusal.value)
    assert "trainer.max_stepz" in said
    assert "optimizer: lr must be a finite number and not negative, but got -1.0." in said
    assert "patience must be at least 1, but got 0." in said
    assert "n_heads" in said


def test_an_unknown_end(make_job):
    refuses(
        make_job(trainer={"max_steps": None}),
        ConfigError,
        "trainer: must say when to stop, but got none of max_steps, max_epochs and max_time.",
    )


def test_more_devices_than_there_are(make_job, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refuses(
        make_job(trainer={"devices": 2}),
        MachineError,
        "trainer.devices: must be 1 on a machine without a GPU, but got 2. "
        "For several processes on the CPU's cores set trainer.accelerator=cpu.",
    )
    refuses(
        make_job(trainer={"accelerator": "gpu"}),
        MachineError,
        "trainer.accelerator: must be available on this machine, but 'gpu' is not. Use auto or cpu.",
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for devices in (3, [0, 2], "0,2"):
        refuses(
            make_job(trainer={"devices": devices}),
            MachineError,
            f"trainer.devices: must be among the 2 of this machine, but got {devices}.",
        )


@pytest.mark.parametrize(
    ("head", "answers"), [("classifier", "a class for each row"), ("tagger", "a tag for each token")]
)
def test_a_head_that_does_not_answer_what_is_asked(make_job, head, answers):
    model = {"name": "encoder_only", "d_model": 32, "max_length": 32, "tie": False}
    refuses(
        make_job(model=model, encoder={"n_layers": 1}, head={"name": head}),
        ConfigError,
        f"head: {head} answers with {answers}, but masked_token asks for a token of the vocabulary. "
        "Use head=linear or head=tied.",
    )


def test_a_head_answers_an_objective_of_its_kind(make_job):
    """What is asked decides, not names: an objective of somebody's own may ask for classes."""

    class Classes(MaskedToken):
        """Asks for the class of a row, which is its first token's parity."""

        asks = "class"

        def batch(self, examples, rng):
            batch = super().batch(examples, rng)
            return batch._replace(targets=batch.tokens[:, 0] % 2)

    REGISTRY.register("objective/classes")(Classes)
    try:
        model = {"name": "encoder_only", "d_model": 32, "max_length": 32, "tie": False}
        names = {"model": model, "encoder": {"n_layers": 1}, "objective": {"name": "classes"}}
        assert run(make_job(**names, head={"name": "classifier"})).status == "done"
        refuses(
            make_job("second", **names, head={"name": "linear"}),
            ConfigError,
            "head: linear answers with a token of the vocabulary, but classes asks for a class for each row. "
            "Use head=classifier, or objective=masked_token.",
        )
    finally:
        del REGISTRY._entries["objective/classes"]


def test_missing_data(make_job, tmp_path):
    with pytest.raises(DataError):
        run(make_job(data={"name": "text", "path": str(tmp_path / "nothing.txt")}))


def test_a_checkpoint_of_another_architecture(make_job):
    first = make_job("first", trainer={"max_steps": 2})
    run(first)
    path = first.folder / "checkpoints" / "last.ckpt"
    refuses(
        make_job("second", ffn={"name": "swiglu"}, ckpt_path=str(path)),
        CheckpointError,
        f"ckpt_path: the model must be the one that {path} was saved from, but 1 thing differs:\n"
        "  model.decoder.layers[0].ffn is ffn/mlp in the checkpoint and ffn/swiglu here",
    )


def test_a_checkpoint_that_is_not_there(make_job, tmp_path):
    refuses(
        make_job(ckpt_path=str(tmp_path / "nowhere.ckpt")),
        CheckpointError,
        f"ckpt_path: there must be a checkpoint at {tmp_path}/nowhere.ckpt, but there is none.",
    )


@pytest.mark.parametrize("name", ["next_token", "span_corruption"])
def test_given_trees_are_refused_where_the_objective_does_not_keep_them(make_job, name):
    """A tree of a whole sentence tells a decoder the future, and what is left of it hangs on what was cut out."""
    words = {"model": {"name": "encoder_decoder"}, "encoder": {"n_layers": 1}} if name == "span_corruption" else {}
    data = prepare(make_job(**words, objective={"name": name})).data
    data.trees = "given"
    model = torch.nn.ModuleList([Dependency(4, 8)])
    with pytest.raises(ConfigError) as refusal:
        check_trees(model, data)
    assert str(refusal.value) == (
        "objective: it must keep the trees that are given with data 'text' for position 'dependency', "
        f"but {name!r} does not. Use objective=masked_token."
    )
    data.objective = MaskedToken(data.tokenizer, 32, "encoder", "text")
    check_trees(model, data)


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "steps"),
    [
        ({"max_steps": 100, "max_epochs": -1}, 100),
        ({"max_steps": -1, "max_epochs": 3}, 30),
        ({"max_steps": 20, "max_epochs": 3}, 20),
        ({"max_epochs": 2, "accumulate_grad_batches": 4}, 6),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 10),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
        ({"max_epochs": -1, "max_steps": -1}, -1),
    ],
)
def test_how_many_steps_a_run_will_take(choices, steps):
    assert planned_steps(choices, n_batches=10) == steps


def test_ten_validations_if_nobody_says():
    assert with_validations({}, 200)["val_check_interval"] == 20
    assert with_validations({"accumulate_grad_batches": 3}, 200)["val_check_interval"] == 20
    assert with_validations({"val_check_interval": 7}, 200)["val_check_interval"] == 7
    assert with_validations({"val_check_interval": 0.5}, 200)["check_val_every_n_epoch"] == 1


def test_the_schedule_knows_how_long_the_run_is(make_job):
    parts = prepare(make_job(schedule={"name": "cosine"}, trainer={"max_steps": 77}))
    assert parts.schedule.max_steps == 77


def test_the_record_is_plain_json(make_job):
    job = make_job(trainer={"max_steps": 2})
    run(job)
    assert json.loads((job.folder / "run.json").read_text(encoding="utf-8"))["spec"] == job.spec
