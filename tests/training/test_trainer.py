"""What ``trainer.*`` may be: for each argument of Lightning's the values that are taken, and refusals of others."""

import inspect
import math
from datetime import timedelta

import lightning as L
import pytest

from registry.errors import ConfigError
from training.run import run
from training.trainer import OWN, VALUES, check, fitted, known, time_of, wrong

BATCHES = "must be a whole number of batches of {}, at least 1, or a share of them, above 0.0 and at most 1.0"
INTERVAL = (
    "must be a whole number of optimizer steps, at least 1, or a share of an epoch, above 0.0 and at most 1.0, "
    "or a length of time, as in '00:00:30:00' (DD:HH:MM:SS)"
)
TIME = "must be a length of time above 0, as in '00:08:00:00' (DD:HH:MM:SS) or {hours: 8}"
CLIP = "must be a finite number, not negative (0: gradients are not clipped)"
SWITCH = "must be true or false"
DEVICES = "must be a number of devices, at least 1 (-1: all), auto, or different indices, as in [0,1]"

REFUSED = {
    "max_steps": ("must be a whole number of optimizer steps, at least 1 (-1: no limit)", [0, -2, 1.5, "many", True]),
    "max_epochs": ("must be a whole number of epochs, at least 1 (-1: no limit)", [0, -2, 1.5, math.inf]),
    "min_steps": ("must be a whole number of optimizer steps, at least 0", [-1, 0.5]),
    "min_epochs": ("must be a whole number of epochs, at least 0", [-1, False]),
    "max_time": (TIME, ["soon", 60, "1:2", "00:00:00:00", {}, {"hours": -1}, {"moons": 1}, {"days": 10**30}]),
    "limit_train_batches": (BATCHES.format("an epoch"), [0, 0.0, -1, 1.5, 2.0, math.nan, True, "all"]),
    "limit_val_batches": (BATCHES.format("a validation"), [0, 0.0, -0.5, []]),
    "val_check_interval": (INTERVAL, [0, 0.0, -1, 1.5, True, "often", "00:00:00:00", {"hours": 0}]),
    "check_val_every_n_epoch": ("must be a whole number of epochs, at least 1", [0, -1, 0.5]),
    "log_every_n_steps": ("must be a whole number of optimizer steps, at least 1", [0, -1, 1.5]),
    "accumulate_grad_batches": (
        "must be a whole number of micro-batches in an optimizer step, at least 1",
        [0, -2, 1.5, "4", {}],
    ),
    "gradient_clip_val": (CLIP, [-1, -0.5, math.inf, math.nan, "1", True, []]),
    "gradient_clip_algorithm": ("must be one of norm, value", ["by_guess", 2]),
    "devices": (DEVICES, [0, -2, 1.5, [], [0, 0], [-1], "", "many", "0,0", True]),
    "num_nodes": ("must be a whole number of machines, at least 1", [0, -1, 1.5]),
    "precision": (None, ["31", "fast", True, []]),
    "strategy": (None, ["deepspeed", "ddp_spawn", "ddp_fork_find_unused_parameters_true", "ddp_notebook", "fast", 1]),
    "accelerator": (None, ["abacus", 0, []]),
    "profiler": ("must be one of simple, advanced, pytorch", ["xla", True]),
    "deterministic": ("must be true or false, or warn", ["yes", 1]),
    "benchmark": (SWITCH, ["yes", 1]),
    "detect_anomaly": (SWITCH, [0, "no"]),
    "sync_batchnorm": (SWITCH, [1.0]),
}


def sentences(**asked):
    return list(wrong({"max_steps": 1, "gradient_clip_val": 1.0, **asked}))


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, (_, values) in REFUSED.items() for v in values])
def test_a_value_that_makes_no_sense_is_refused(name, value):
    (sentence,) = sentences(**{name: value})
    must = REFUSED[name][0] or "must be one of auto, "
    assert sentence.startswith(f"trainer.{name}: {must}")
    assert f", but got {value!r}." in sentence


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_steps", [1, -1, 10**30]),
        ("max_epochs", [1, -1]),
        ("min_steps", [0, 1]),
        ("max_time", ["00:00:00:01", {"hours": 1.5}]),
        ("limit_train_batches", [1, 0.5, 1.0, 10**30]),
        ("val_check_interval", [1, 0.5, 1.0, "00:00:30:00", {"minutes": 30}]),
        ("gradient_clip_val", [0, 1, 0.5, 1e300]),
        ("devices", [1, -1, "2", "auto", [0, 1], "0,1"]),
        ("precision", ["auto", 32, "bf16-mixed"]),
        ("strategy", ["auto", "ddp", "fsdp"]),
        ("accelerator", ["auto", "cpu", "gpu"]),
        ("deterministic", [True, "warn"]),
    ],
)
def test_a_value_that_makes_sense_is_taken(name, values):
    others = {"max_epochs": 1} if name != "max_epochs" else {}
    assert [sentences(**{**others, name: value}) for value in values] == [[]] * len(values)


def test_nothing_may_be_said_of_every_argument():
    for name in set(VALUES) - {"max_steps", "gradient_clip_val"}:
        assert sentences(**{name: None}) == []


def test_every_argument_of_lightning_has_its_values_or_what_decides_it():
    names = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    assert {*VALUES, *OWN} == names
    assert set(known()) == set(VALUES)


@pytest.mark.parametrize("name", OWN)
def test_what_a_run_sets_itself_is_refused_with_what_to_do(name):
    assert sentences(**{name: 1}) == [f"trainer.{name}: must not be set here, but got 1. {OWN[name]}."]


def test_everything_that_is_wrong_is_in_one_report():
    with pytest.raises(ConfigError) as refusal:
        check({"max_steps": 0, "presicion": "auto", "callbacks": [], "gradient_clip_val": -1})
    assert str(refusal.value).splitlines() == [
        "trainer.max_steps: must be a whole number of optimizer steps, at least 1 (-1: no limit), but got 0.",
        "trainer.presicion: Lightning's Trainer has no choice 'presicion'. Did you mean 'precision'?",
        "trainer.callbacks: must not be set here, but got []. Use callbacks=[...].",
        f"trainer.gradient_clip_val: {CLIP}, but got -1.",
    ]


def test_values_that_contradict_each_other():
    assert sentences(min_steps=2) == ["trainer.min_steps: must be at most trainer.max_steps, but got 2 and 1."]
    assert sentences(gradient_clip_algorithm="value", gradient_clip_val=0) == [
        "trainer.gradient_clip_algorithm: must go with trainer.gradient_clip_val above 0, but got 'value' and 0."
    ]


def test_a_share_of_the_batches_that_is_none():
    with pytest.raises(ConfigError) as refusal:
        fitted({"limit_train_batches": 1e-4, "limit_val_batches": 0.1}, 200, 5)
    assert str(refusal.value).splitlines() == [
        "trainer.limit_train_batches: must leave at least one batch of 200, but got the share 0.0001. "
        "Use 0.005 or more, or a number of batches.",
        "trainer.limit_val_batches: must leave at least one batch of 5, but got the share 0.1. "
        "Use 0.2 or more, or a number of batches.",
    ]


def test_a_validation_that_no_epoch_is_long_enough_for():
    choices = {"val_check_interval": 5, "accumulate_grad_batches": 3}
    assert fitted(choices, 10, 1) == choices
    with pytest.raises(ConfigError) as refusal:
        fitted({**choices, "check_val_every_n_epoch": 1}, 10, 1)
    assert str(refusal.value) == (
        "trainer.val_check_interval: must be at most 4, the steps of an epoch, where trainer.check_val_every_n_epoch "
        "is set, but got 5. Set that to null to count steps across epochs."
    )


def test_a_least_number_that_the_run_ends_before():
    choices = {"min_epochs": 3, "max_steps": 12, "accumulate_grad_batches": 3}
    assert fitted(choices, 10, 1) == choices  # 4 steps an epoch
    with pytest.raises(ConfigError) as refusal:
        fitted({**choices, "max_steps": 11}, 10, 1)
    assert str(refusal.value) == (
        "trainer.min_epochs: must be at most 2, the epochs in trainer.max_steps=11, but got 3."
    )
    fitted({"min_steps": 20, "max_epochs": 2, "max_steps": -1}, 10, 1)
    with pytest.raises(ConfigError) as refusal:
        fitted({"min_steps": 21, "max_epochs": 2, "max_steps": -1}, 10, 1)
    assert str(refusal.value) == "trainer.min_steps: must be at most 20, the steps in trainer.max_epochs=2, but got 21."


def test_more_micro_batches_than_an_epoch_has_are_those_of_an_epoch():
    assert fitted({"accumulate_grad_batches": 10**30}, 10, 1)["accumulate_grad_batches"] == 10


def test_lengths_of_time():
    assert time_of("01:02:03:04") == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert time_of({"hours": 1.5}) == timedelta(hours=1, minutes=30)


@pytest.mark.parametrize(
    "choices",
    [
        {"accumulate_grad_batches": 10**30, "limit_train_batches": 2},
        {"max_steps": None, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0.5},
        {"val_check_interval": "00:00:30:00", "max_time": {"hours": 1}, "deterministic": "warn", "benchmark": False},
        {
            "min_epochs": 2,
            "limit_train_batches": 1,
            "gradient_clip_val": 0,
            "detect_anomaly": True,
            "sync_batchnorm": True,
            "precision": 64,
        },
        {"profiler": "simple", "log_every_n_steps": 10**30, "check_val_every_n_epoch": 2},
    ],
    ids=lambda choices: next(iter(choices)),
)
def test_values_at_the_edge_train_and_validate(make_job, choices):
    job = make_job(trainer={"max_steps": 2, **choices})
    record = run(job)
    assert record.status == "done"
    assert record.metrics["steps"] > 0
    assert record.metrics["validations"][-1]["step"] == record.metrics["steps"]
    assert ((job.folder / "fit-profile.txt").exists()) == ("profiler" in choices)


def test_nothing_is_written_where_a_value_is_refused(make_job):
    job = make_job(trainer={"accumulate_grad_batches": -2, "val_check_interval": 0, "limit_train_batches": 1e-4})
    with pytest.raises(ConfigError) as refusal:
        run(job)
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == [
        "trainer.val_check_interval",
        "trainer.accumulate_grad_batches",
    ]
    assert list(job.folder.iterdir()) == []
