"""Laws of schedules."""

from __future__ import annotations

from itertools import pairwise

from blocks.laws import hold
from training.contracts import Schedule

JUMP = 0.06
"""The most that the factor of a schedule of a thousand steps changes from one to the next."""

FULL = 0.99
"""What the factor must reach for the learning rate that was chosen to be one that is used."""


def stays_within_bounds(schedule: Schedule) -> None:
    """The factor is a number from 0 to 1, from the first step to beyond the last, and is 1 at some step."""
    factors = [schedule(step) for step in _steps(schedule)]
    wrong = [(step, factor) for step, factor in enumerate(factors) if not 0 <= factor <= 1]
    hold(not wrong, f"the factor must be from 0 to 1, but is {wrong and wrong[0][1]} at step {wrong and wrong[0][0]}.")
    top = max(factors)
    hold(top >= FULL, f"the factor must reach 1, so that the learning rate is the one chosen, but ends at {top:.3g}.")


def takes_a_first_and_a_last_step(schedule: Schedule) -> None:
    """The first step moves, and so does one of the last two, or of the last hundredth."""
    hold(schedule(0) > 0, "the first step must move, but its factor is 0.")
    if schedule.max_steps > 0:
        count = min(schedule.max_steps, max(2, schedule.max_steps // 100))
        last = [schedule(schedule.max_steps - 1 - step) for step in range(count)]
        hold(max(last) > 0, f"some of the last {count} steps must move, but their factors are all 0.")


def changes_little_by_little(schedule: Schedule) -> None:
    """From step to step the factor changes little, unless the schedule declares that it ``jumps``."""
    if schedule.jumps or 0 < schedule.max_steps < 1000:  # the changes of a short schedule are large by themselves
        return
    steps = range(schedule.max_steps) if schedule.max_steps > 0 else range(1000)
    for before, after in pairwise(steps):
        change = abs(schedule(after) - schedule(before))
        allowed = f"at most {JUMP} where jumps is False"
        hold(change <= JUMP, f"the factor must change by {allowed}, but by {change:.3g} from step {before} to {after}.")


def depends_on_the_step_alone(schedule: Schedule) -> None:
    """A factor is the same whatever steps were asked for before, so that a run can be taken up anywhere."""
    steps = list(_steps(schedule))
    forward = [schedule(step) for step in steps]
    backward = [schedule(step) for step in reversed(steps)][::-1]
    hold(forward == backward, "the factor must depend on the step alone, but the order of the calls changes it.")


def _steps(schedule: Schedule) -> range:
    return range((schedule.max_steps if schedule.max_steps > 0 else 1000) + 20)
