"""When a run validates: after whole optimizer steps, however many micro-batches and epochs they have."""

import pytest

from training.loop import between_steps
from training.run import run


@pytest.fixture
def validated(make_job, hook, monkeypatch):
    """Trains with some choices; gives the steps after which it validated, each of them outside of a step."""
    from training.task import SequenceTask

    inside = []
    start = SequenceTask.on_validation_epoch_start
    monkeypatch.setattr(
        SequenceTask,
        "on_validation_epoch_start",
        lambda task: inside.append(not between_steps(task.trainer)) or start(task),
    )

    def train(name="run", callbacks=("checkpoint",), **trainer):
        record = run(make_job(name, callbacks=list(callbacks), trainer=trainer))
        assert not any(inside)
        return [v["step"] for v in record.metrics["validations"]]

    return train


def test_an_interval_counts_optimizer_steps(validated):
    assert validated(accumulate_grad_batches=3, val_check_interval=10, max_steps=25) == [10, 20, 25]


def test_steps_are_counted_across_epochs_that_end_in_a_shorter_step(validated):
    """Seven micro-batches are steps of 3, 3 and 1."""
    choices = {"limit_train_batches": 7, "accumulate_grad_batches": 3, "val_check_interval": 4}
    assert validated(**choices, max_steps=13) == [4, 8, 12, 13]


@pytest.mark.parametrize(("share", "steps"), [(1.0, [4, 8]), (0.5, [2, 4, 6, 8]), (0.26, list(range(1, 9)))])
def test_a_share_is_of_the_steps_of_an_epoch(validated, share, steps):
    """Ten micro-batches are four steps."""
    choices = {"limit_train_batches": 10, "accumulate_grad_batches": 3, "val_check_interval": share}
    assert validated(**choices, max_steps=-1, max_epochs=2) == steps


def test_epochs_without_a_validation_are_left_out_and_the_last_step_is_not(validated):
    choices = {"limit_train_batches": 4, "accumulate_grad_batches": 2, "check_val_every_n_epoch": 2}
    assert validated(**choices, val_check_interval=1, max_steps=-1, max_epochs=5) == [3, 4, 7, 8, 10]


def test_a_request_to_stop_waits_for_the_end_of_the_step(validated, hook):
    def end(trainer, task):
        if trainer.global_step == 2 and not between_steps(trainer):
            trainer.should_stop = True

    hook["end"] = end
    choices = {"accumulate_grad_batches": 3, "val_check_interval": 10, "max_steps": 20}
    assert validated(**choices, callbacks=["hook", "checkpoint"]) == [3]


def test_a_run_with_accumulation_goes_on_as_if_it_had_not_stopped(make_job):
    from training.checkpoint import load

    choices = {"limit_train_batches": 7, "accumulate_grad_batches": 3, "val_check_interval": 2}
    folders = {}
    for name, steps, start in (("whole", 8, None), ("part", 5, None), ("rest", 8, "part")):
        path = None if start is None else str(folders[start] / "checkpoints" / "last.ckpt")
        job = make_job(name, trainer={**choices, "max_steps": steps}, ckpt_path=path)
        record = run(job)
        folders[name] = job.folder
    assert [v["step"] for v in record.metrics["validations"]] == [2, 4, 5, 6, 8]
    whole, rest = (load(folders[n] / "checkpoints" / "last.ckpt")["state_dict"] for n in ("whole", "rest"))
    assert all((whole[k] == rest[k]).all() for k in whole)
