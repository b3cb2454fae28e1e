"""Warm-up, plateau, decay: three straight lines."""

import re

import pytest

from training.schedule.wsd import WarmupStableDecay


def test_it_is_a_rise_a_plateau_and_a_fall():
    schedule = WarmupStableDecay(10, warmup=2, decay=4, final=0.0)
    assert [schedule(step) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0]


def test_the_fall_ends_at_final():
    schedule = WarmupStableDecay(10, warmup=0, decay=0.5, final=0.2)
    assert schedule(9) == pytest.approx(0.2)
    assert schedule(7) == pytest.approx(0.2 + 0.8 * 2 / 5)


def test_behind_the_last_step_it_stays_where_it_is():
    assert WarmupStableDecay(10, final=0.3)(99) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("max_steps", "choices", "sentence"),
    [
        (0, {}, "trainer.max_steps must be known for WarmupStableDecay, but got none. Set it, or schedule=constant."),
        (10, {"final": -0.1}, "final must be between 0 and 1, but got -0.1."),
        (10, {"warmup": 6, "decay": 5}, "warmup and decay must fit into 10 steps, but got 6 and 5 steps."),
    ],
)
def test_refusals(max_steps, choices, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        WarmupStableDecay(max_steps, **choices)
