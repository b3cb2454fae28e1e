"""Early stopping: how many validations pass without an improvement, and what counts as one."""

import re
from types import SimpleNamespace

import pytest

from registry.errors import ConfigError
from training.callback.early_stopping import EarlyStopping
from training.run import run


def stops_at(values, **choices):
    """Which validation ends the run; None if all pass."""
    callback, trainer = EarlyStopping(**choices), SimpleNamespace(should_stop=False)
    for i, value in enumerate(values):
        callback.on_validation_end(trainer, SimpleNamespace(val_metrics={"val/loss": value}))
        if trainer.should_stop:
            return i
    return None


def test_patience_counts_validations_since_the_best():
    assert stops_at([3, 2, 2.5, 2.4, 1.9, 2, 2, 2], patience=3) == 7
    assert stops_at([3, 2, 2.5, 2.4, 2.3], patience=3) == 4
    assert stops_at([3, 3], patience=1) == 1


def test_a_small_gain_is_none():
    assert stops_at([3.0, 2.95, 2.9, 2.85], patience=2, min_delta=0.2) == 2
    assert stops_at([3.0, 2.7, 2.4, 2.1], patience=2, min_delta=0.2) is None


def test_higher_may_be_better():
    assert stops_at([1, 2, 3, 2, 2], patience=2, mode="max") == 4


def test_a_resumed_run_has_not_forgotten_how_long_it_waited():
    first, second = EarlyStopping(patience=2), EarlyStopping(patience=2)
    trainer = SimpleNamespace(should_stop=False)
    for value in (2, 3):
        first.on_validation_end(trainer, SimpleNamespace(val_metrics={"val/loss": value}))
    second.load_state_dict(first.state_dict())
    second.on_validation_end(trainer, SimpleNamespace(val_metrics={"val/loss": 3}))
    assert trainer.should_stop


def test_it_ends_a_run(make_job):
    record = run(
        make_job(
            callbacks=[{"name": "early_stopping", "patience": 2, "min_delta": 100.0}],
            trainer={"max_steps": 100, "val_check_interval": 2},
        )
    )
    assert (record.status, record.metrics["steps"]) == ("done", 6)


def test_a_metric_that_is_not_there_is_refused_with_those_that_are(make_job):
    job = make_job(callbacks=[{"name": "early_stopping", "monitor": "x"}])
    sentence = "callbacks.early_stopping.monitor: must be one of val/loss, val/bits_per_byte, but got 'x'."
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        run(job)
    assert list(job.folder.iterdir()) == []


def test_refusals():
    with pytest.raises(ValueError, match=r"^patience must be at least 1, but got 0\.$"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match=r"^min_delta must not be negative, but got -1\.$"):
        EarlyStopping(min_delta=-1)
