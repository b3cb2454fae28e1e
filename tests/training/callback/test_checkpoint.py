"""The checkpoint callback: last at every validation, best when it is better, both whole."""

import pytest

from registry.errors import CheckpointError, ConfigError
from training.callback.checkpoint import Checkpoint
from training.checkpoint import load, sidecar
from training.run import run


def test_last_is_the_end_and_best_is_the_best(make_job, hook):
    """Weights that are spoilt on the way make the last validation worse than an earlier one."""

    def spoil(trainer, task):
        if trainer.global_step == 13:
            for p in task.parameters():
                p.data.mul_(20.0)

    hook["end"] = spoil
    job = make_job(callbacks=["checkpoint", "hook"], trainer={"max_steps": 16})
    record = run(job)
    saved = {name: load(job.folder / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")}
    assert saved["last"]["global_step"] == 16
    assert saved["best"]["global_step"] == record.metrics["best"]["step"]
    values = {v["step"]: v["val/loss"] for v in record.metrics["validations"]}
    assert record.metrics["best"]["step"] == min(values, key=values.get) != 16
    assert all(sidecar(job.folder / "checkpoints" / f"{name}.ckpt").exists() for name in ("best", "last"))


def test_another_metric_may_say_which_is_best(make_job):
    job = make_job(callbacks=[{"name": "checkpoint", "monitor": "val/loss", "mode": "max"}])
    record = run(job)
    highest = max(record.metrics["validations"], key=lambda v: v["val/loss"])
    assert load(job.folder / "checkpoints" / "best.ckpt")["global_step"] == highest["step"]


def test_the_last_state_is_also_saved_between_validations(make_job, monkeypatch):
    saved = []
    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, t: saved.append(t.global_step) or save(self, t))
    run(make_job(callbacks=[{"name": "checkpoint", "every_n_steps": 3}], trainer={"val_check_interval": 8}))
    assert saved == [3, 6, 8]


def test_the_one_before_the_last_is_kept_and_no_other(make_job):
    job = make_job(callbacks=[{"name": "checkpoint", "every_n_steps": 2}], trainer={"max_steps": 16})
    run(job)
    folder = job.folder / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.ckpt{end}" for name in ("best", "last", "previous") for end in ("", ".sha256")
    }
    assert load(folder / "last.ckpt")["global_step"] == 16
    assert load(folder / "previous.ckpt")["global_step"] == 14


def test_damage_to_the_last_is_told_before_anything_is_written_and_the_one_before_serves(make_job):
    first = make_job("first")
    run(first)
    path = first.folder / "checkpoints" / "last.ckpt"
    (path.parent / "best.ckpt").unlink()
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 1
    path.write_bytes(content)
    second = make_job("second", ckpt_path=str(path))
    with pytest.raises(CheckpointError) as refusal:
        run(second)
    previous = path.with_name("previous.ckpt")
    assert str(refusal.value).endswith(f"the file is damaged. previous.ckpt beside it is whole: ckpt_path={previous}")
    assert refusal.value.status == 4
    assert list(second.folder.iterdir()) == []
    record = run(make_job("third", ckpt_path=str(previous)))
    assert [v["step"] for v in record.metrics["validations"]] == [4, 8]


def test_the_best_comes_along_into_the_folder_of_the_run_that_goes_on(make_job, hook):
    """The run that goes on only gets worse, so that it never has a better one."""
    first = make_job("first", callbacks=["checkpoint", "hook"])
    run(first)
    hook["end"] = lambda trainer, task: [p.data.mul_(20.0) for p in task.parameters()] and None
    job = make_job(
        "second",
        callbacks=["checkpoint", "hook"],
        trainer={"max_steps": 12},
        ckpt_path=str(first.folder / "checkpoints" / "last.ckpt"),
    )
    record = run(job)
    assert record.metrics["best"]["step"] == 8
    assert load(job.folder / record.files["best"])["global_step"] == 8


def test_another_metric_starts_its_best_anew():
    first, second = Checkpoint(), Checkpoint(monitor="val/bits_per_byte")
    first.best, first.best_step = 3.0, 8
    second.load_state_dict(first.state_dict())
    assert (second.best, second.best_step) == (None, 0)


def test_a_metric_that_is_not_there_is_refused_with_those_that_are(make_job):
    job = make_job(callbacks=[{"name": "checkpoint", "monitor": "val/bleu"}])
    with pytest.raises(ConfigError) as refusal:
        run(job)
    assert str(refusal.value) == (
        "callbacks.checkpoint.monitor: must be one of val/loss, val/bits_per_byte, but got 'val/bleu'. "
        "Did you mean 'val/loss'?"
    )
    assert list(job.folder.iterdir()) == []


def test_a_loss_that_blocks_report_may_say_which_is_best(make_job):
    """Some of what a validation measures is known from the model alone."""
    callbacks = [{"name": "checkpoint", "monitor": "val/balance", "mode": "max"}, {"name": "early_stopping"}]
    record = run(make_job(callbacks=callbacks, ffn={"name": "moe", "n_experts": 2, "top_k": 1}))
    highest = max(record.metrics["validations"], key=lambda v: v["val/balance"])
    assert load(make_job().folder / "checkpoints" / "best.ckpt")["global_step"] == highest["step"]
    callbacks = [{"name": "checkpoint", "monitor": "val/balance"}, {"name": "early_stopping", "monitor": "x"}]
    with pytest.raises(ConfigError) as refusal:
        run(make_job("dense", callbacks=callbacks))
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == [
        "callbacks.early_stopping.monitor",
        "callbacks.checkpoint.monitor",
    ]


def test_bits_a_byte_may_say_which_is_best(make_job):
    job = make_job(callbacks=[{"name": "checkpoint", "monitor": "val/bits_per_byte"}])
    record = run(job)
    assert load(job.folder / "checkpoints" / "best.ckpt")["global_step"] == record.metrics["best"]["step"]


def test_a_checkpoint_holds_what_a_model_needs_to_speak(make_job):
    job = make_job(trainer={"max_steps": 2}, tokenizer={"name": "char"})
    run(job)
    kept = load(job.folder / "checkpoints" / "last.ckpt")["blockwright"]
    assert kept["model"] == job.spec["model"]
    assert "characters" in kept["tokenizer"]
    assert kept["gives"] == "text"


def test_every_n_steps_must_be_steps():
    with pytest.raises(ValueError, match=r"^every_n_steps must be at least 1, but got 0\.$"):
        Checkpoint(every_n_steps=0)
