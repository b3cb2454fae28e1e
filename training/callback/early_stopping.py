"""Ends a run that no longer gets better.

Prechelt 1998, https://doi.org/10.1007/3-540-49430-8_3
"""

from __future__ import annotations

from typing import Any, Literal

import lightning as L

from registry import register


@register("callback/early_stopping")
class EarlyStopping(L.Callback):
    """Stops after some validations in a row without an improvement.

    Args:
        monitor: The metric of a validation that has to improve.
        mode: Whether a lower or a higher value of it is better.
        patience: How many validations may pass without an improvement.
        min_delta: How much better counts as better.

    Raises:
        ValueError: ``patience`` is not positive, or ``min_delta`` is negative.
    """

    def __init__(
        self,
        *,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 3,
        min_delta: float = 0.0,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, but got {patience}.")
        if min_delta < 0:
            raise ValueError(f"min_delta must not be negative, but got {min_delta}.")
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, min_delta
        self.best: float | None = None
        self.waited = 0

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        value = task.val_metrics[self.monitor]
        gain = 0.0 if self.best is None else (self.best - value) * (1 if self.mode == "min" else -1)
        if self.best is None or gain > self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (state_dict.get("monitor"), state_dict.get("mode")) == (self.monitor, self.mode):
            self.best, self.waited = state_dict["best"], state_dict["waited"]
