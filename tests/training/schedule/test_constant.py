"""The constant schedule: a straight rise, then 1 for good."""

import re

import pytest

from training.schedule.constant import Constant


def test_without_a_warm_up_it_is_one_from_the_start():
    assert [Constant(10)(step) for step in range(10)] == [1.0] * 10


def test_the_warm_up_rises_in_a_straight_line_and_never_starts_at_nothing():
    assert [Constant(10, warmup=4)(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_below_one_a_warm_up_is_a_share_of_all_steps():
    assert Constant(100, warmup=0.05).warmup == 5
    assert Constant(100, warmup=1).warmup == 1


def test_it_needs_no_last_step():
    assert Constant(-1, warmup=2)(1_000_000) == 1.0


@pytest.mark.parametrize(
    ("max_steps", "warmup", "sentence"),
    [
        (10, -1, "warmup must be a share below 1 or a whole number of steps, but got -1."),
        (10, 2.5, "warmup must be a share below 1 or a whole number of steps, but got 2.5."),
        (
            -1,
            0.1,
            "warmup must be a number of steps where trainer.max_steps is not known, but got the share 0.1.",
        ),
    ],
)
def test_refuses_a_warm_up_that_it_can_not_count(max_steps, warmup, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Constant(max_steps, warmup=warmup)
