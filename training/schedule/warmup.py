"""The rise at the start that every schedule has."""

from __future__ import annotations


def count(name: str, value: float, max_steps: int) -> int:
    """``value`` in steps: a share of ``max_steps`` if it is below 1, else a number of steps.

    Raises:
        ValueError: It is negative or a fraction of a step, or a share of an unknown number of steps.
    """
    if value < 0 or (value >= 1 and value != int(value)):
        raise ValueError(f"{name} must be a share below 1 or a whole number of steps, but got {value}.")
    if 0 < value < 1 and max_steps < 1:
        raise ValueError(
            f"{name} must be a number of steps where trainer.max_steps is not known, but got the share {value}."
        )
    return round(value * max_steps) if value < 1 else int(value)


def rise(step: int, warmup: int) -> float:
    """A straight line that is 1 from the last step of the warm-up on."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
