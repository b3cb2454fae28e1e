"""The progress line: what it tells, what it leaves out where there is no room, plain lines without a terminal."""

from types import SimpleNamespace

import pytest

from training.callback.progress import Progress, validation_line
from training.run import run


def progress(**latest):
    made = Progress()
    made.meter = SimpleNamespace(latest=latest, first_step=0)
    made.total, made.start = 2000, 0.0
    made.time_left = lambda step: 83.0
    return made


LATEST = {"train/loss": 1.8734, "train/bits_per_byte": 2.7027, "tokens_per_second": 31234.0, "lr": 9.1e-4}


def test_a_line_tells_step_loss_bits_speed_rate_and_time():
    assert progress(**LATEST).line(1240, 100) == (
        "  step 1,240/2,000   loss 1.873   2.703 bits/byte   31.2 k tokens/s   lr 9.1e-04   1:23 left"
    )


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "  step 1,240/2,000   loss 1.873   2.703 bits/byte   31.2 k tokens/s   1:23 left"),
        (62, "  step 1,240/2,000   loss 1.873   2.703 bits/byte   1:23 left"),
        (50, "  step 1,240/2,000   loss 1.873   1:23 left"),
        (36, "  step 1,240/2,000   loss 1.873"),
        (20, "  step 1,240/2,000"),
    ],
)
def test_the_least_goes_first_where_there_is_no_room(width, line):
    assert progress(**LATEST).line(1240, width) == line


def test_before_the_first_look_only_the_step_and_the_time_are_known():
    assert progress().line(3, 80) == "  step 3/2,000   1:23 left"


def test_a_validation_says_whether_it_is_the_best():
    metrics = {"val/loss": 1.91234, "val/bits_per_byte": 2.7589}
    assert validation_line(metrics, 1200, True) == "  validation at 1,200   loss 1.9123   2.759 bits/byte   best"
    assert validation_line({"val/loss": 2.0}, 5, False) == "  validation at 5   loss 2.0000"


def test_without_a_terminal_a_run_says_some_twenty_lines(make_job, capsys):
    run(make_job(callbacks=["progress"], trainer={"max_steps": 80, "val_check_interval": 40}))
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  step ")]) == 20
    assert [line.split("   ")[0].strip() for line in lines if "validation at" in line] == [
        "validation at 40",
        "validation at 80",
    ]
    assert not any("\r" in line or "\x1b" in line for line in lines)
