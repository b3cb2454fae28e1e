"""The cosine schedule: a rise, then half a cosine that ends at ``final``."""

import math
import re

import pytest

from training.schedule.cosine import Cosine


def test_it_falls_along_half_a_cosine_to_final():
    schedule = Cosine(8, warmup=0, final=0.2)
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(1, 9)]
    assert [schedule(step) for step in range(8)] == pytest.approx(expected, abs=1e-12)
    assert schedule(7) == pytest.approx(0.2)


def test_the_peak_is_the_end_of_the_warm_up():
    schedule = Cosine(20, warmup=0.2)
    values = [schedule(step) for step in range(20)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[3:] == sorted(values[3:], reverse=True)


def test_behind_the_last_step_it_stays_where_it_is():
    assert Cosine(10, final=0.1)(50) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("max_steps", "choices", "sentence"),
    [
        (-1, {}, "trainer.max_steps must be known for Cosine, but got none. Set it, or schedule=constant."),
        (10, {"final": 1.5}, "final must be between 0 and 1, but got 1.5."),
        (10, {"warmup": -2}, "warmup must be a share below 1 or a whole number of steps, but got -2."),
    ],
)
def test_refusals(max_steps, choices, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Cosine(max_steps, **choices)
