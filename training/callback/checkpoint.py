"""Keeps the best and the last state of a run, and the one before the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning as L

from registry import register
from training.checkpoint import link, load
from training.loop import between_steps

FOLDER = "checkpoints"


@register("callback/checkpoint")
class Checkpoint(L.Callback):
    """Saves ``last.ckpt`` at every validation and ``best.ckpt`` when it is better than before.

    What was the last before is kept as ``previous.ckpt``: files are damaged after they were written, too.

    Args:
        monitor: The metric of a validation that says which is best.
        mode: Whether a lower or a higher value of it is better.
        every_n_steps: Also save the last state each so many steps. null: only with validations.

    Raises:
        ValueError: ``every_n_steps`` is not positive.
    """

    def __init__(
        self,
        *,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, but got {every_n_steps}.")
        self.monitor, self.mode, self.every_n_steps = monitor, mode, every_n_steps
        self.best: float | None = None
        self.best_step = 0
        self.saved_step: int | None = None  # in this session

    def setup(self, trainer: L.Trainer, task: Any, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir) / FOLDER

    @property
    def files(self) -> dict[str, Path]:
        """What has been saved, by name."""
        return {name: self._path(name) for name in ("best", "last") if self._path(name).exists()}

    def on_train_start(self, trainer: L.Trainer, task: Any) -> None:
        """A run that goes on in a folder of its own brings along the best that it was told of."""
        if self.best is None or trainer.ckpt_path is None or not trainer.is_global_zero or self._path("best").exists():
            return
        best = Path(trainer.ckpt_path).with_name("best.ckpt")
        if best.exists() and load(best)["global_step"] == self.best_step:
            link(best, self._path("best"))

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        value = task.val_metrics[self.monitor]
        better = self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        if better:
            self.best, self.best_step = value, trainer.global_step
        self.save(trainer)
        if better and trainer.is_global_zero:
            link(self._path("last"), self._path("best"))

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0 and between_steps(trainer):
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save ``last.ckpt`` now; what it was at an earlier step becomes ``previous.ckpt``."""
        if trainer.is_global_zero and self.saved_step not in (None, trainer.global_step):
            link(self._path("last"), self._path("previous"))
        trainer.save_checkpoint(self._path("last"))
        self.saved_step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if (state_dict.get("monitor"), state_dict.get("mode")) == (self.monitor, self.mode):
            self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.ckpt"
