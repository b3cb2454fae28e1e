"""The checkpoint callback: last at every validation, best when it is better, both whole."""

import re

import pytest

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


def test_a_metric_that_is_not_there_is_refused_with_those_that_are(make_job):
    sentence = "callbacks.checkpoint.monitor must be one of val/loss, but got 'val/bleu'."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(make_job(callbacks=[{"name": "checkpoint", "monitor": "val/bleu"}]))


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
