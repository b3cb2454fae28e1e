"""A warm-up, a long plateau, a short fall: warmup, stable, decay.

Hu et al. 2024, https://arxiv.org/abs/2404.06395
"""

from __future__ import annotations

from registry import register
from training.contracts import Schedule
from training.schedule.warmup import count, rise


@register("schedule/wsd")
class WarmupStableDecay(Schedule):
    """The full learning rate between a linear rise and a linear fall.

    Args:
        warmup: Length of the linear rise at the start; below 1 a share of all steps, else a number of steps.
        decay: Length of the linear fall at the end, counted in the same way.
        final: The factor at the last step.

    Raises:
        ValueError: The number of steps is not known, ``warmup`` and ``decay`` do not fit into it, or ``final`` is not
            in [0, 1].
    """

    def __init__(self, max_steps: int, /, *, warmup: float = 0.05, decay: float = 0.2, final: float = 0.0) -> None:
        super().__init__(max_steps)
        if max_steps < 1:
            raise ValueError(
                f"trainer.max_steps must be known for {type(self).__name__}, but got none. Set it, or "
                "schedule=constant."
            )
        if not 0 <= final <= 1:
            raise ValueError(f"final must be between 0 and 1, but got {final}.")
        self.warmup, self.decay = count("warmup", warmup, max_steps), count("decay", decay, max_steps)
        if self.warmup + self.decay > max_steps:
            raise ValueError(
                f"warmup and decay must fit into {max_steps} steps, but got {self.warmup} and {self.decay} steps."
            )
        self.final = final

    def __call__(self, step: int) -> float:
        left = self.max_steps - 1 - step  # steps that follow this one
        fall = min(1.0, max(0, left) / self.decay) if self.decay else 1.0
        return min(rise(step, self.warmup), self.final + (1 - self.final) * fall)
