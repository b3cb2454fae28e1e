"""A warm-up, then half a cosine down.

Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983
"""

from __future__ import annotations

import math

from registry import register
from training.contracts import Schedule
from training.schedule.warmup import count, rise


@register("schedule/cosine")
class Cosine(Schedule):
    """Half a cosine from the full learning rate down to ``final``, after a warm-up.

    Args:
        warmup: Length of the linear rise at the start; below 1 a share of all steps, else a number of steps.
        final: The factor at the last step.

    Raises:
        ValueError: The number of steps is not known, ``warmup`` is negative or a fraction of a step, or ``final`` is
            not in [0, 1].
    """

    def __init__(self, max_steps: int, /, *, warmup: float = 0.05, final: float = 0.1) -> None:
        super().__init__(max_steps)
        if max_steps < 1:
            raise ValueError(
                f"trainer.max_steps must be known for {type(self).__name__}, but got none. Set it, or "
                "schedule=constant."
            )
        if not 0 <= final <= 1:
            raise ValueError(f"final must be between 0 and 1, but got {final}.")
        self.warmup = count("warmup", warmup, max_steps)
        self.final = final

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return rise(step, self.warmup)
        done = (step - self.warmup + 1) / max(1, self.max_steps - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2
