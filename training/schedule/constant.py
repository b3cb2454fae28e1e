"""A warm-up, then the same learning rate to the end."""

from __future__ import annotations

from registry import register
from training.contracts import Schedule
from training.schedule.warmup import count, rise


@register("schedule/constant")
class Constant(Schedule):
    """The same learning rate throughout, after a warm-up.

    Args:
        warmup: Length of the linear rise at the start; below 1 a share of all steps, else a number of steps.

    Raises:
        ValueError: ``warmup`` is negative or a fraction of a step, or a share where the number of steps is not known.
    """

    def __init__(self, max_steps: int, /, *, warmup: float = 0.0) -> None:
        super().__init__(max_steps)
        self.warmup = count("warmup", warmup, max_steps)

    def __call__(self, step: int) -> float:
        return rise(step, self.warmup)
