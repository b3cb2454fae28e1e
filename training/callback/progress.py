"""Shows how a run gets on."""

from __future__ import annotations

import time
from typing import Any

import lightning as L

from registry import register
from training.console import console, count, crop, duration, rate
from training.meter import Meter

REFRESH = 0.1
"""Seconds between two looks of the live line."""

LINES = 20
"""How many lines a run makes where there is no terminal."""


@register("callback/progress")
class Progress(L.Callback):
    """One live line on a terminal, a line now and then anywhere else, and a line for each validation."""

    def on_train_start(self, trainer: Any, task: Any) -> None:
        self.meter = next(c for c in trainer.callbacks if isinstance(c, Meter))
        self.start: tuple[float, int] | None = None  # when the first step was over, and which it was
        self.shown = 0.0
        self.total = total_steps(trainer)
        self.every = max(trainer.log_every_n_steps, -(-(self.total or 1000) // LINES))
        self.next_line = trainer.global_step + self.every

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_global_zero:
            return
        now = time.perf_counter()
        self.start = self.start or (now, trainer.global_step)
        if console.terminal:
            if now >= self.shown + REFRESH:
                self.shown = now
                console.live(self.line(trainer.global_step, console.width - 1))
        elif trainer.global_step >= self.next_line and self.meter.latest:
            self.next_line += self.every
            console.print(self.line(trainer.global_step, console.width))

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        if trainer.is_global_zero:
            best = self.meter.best.get("step") == trainer.global_step
            console.print(validation_line(self.meter.latest, trainer.global_step, best, console.width))

    def on_train_end(self, trainer: L.Trainer, task: Any) -> None:
        console.settle()

    def on_exception(self, trainer: L.Trainer, task: Any, exception: BaseException) -> None:
        console.settle()

    def line(self, step: int, width: int) -> str:
        """Step, loss, bits a byte, speed, learning rate, time left; what does not fit is left out, the least first."""
        latest, total = self.meter.latest, self.total
        parts = [(0, f"step {step:,}/{total:,}" if total else f"step {step:,}")]  # what is told, with its rank
        if "train/loss" in latest:
            parts.append((1, f"loss {latest['train/loss']:.3f}"))
        if "train/bits_per_byte" in latest:
            parts.append((3, f"{latest['train/bits_per_byte']:.3f} bits/byte"))
        if "tokens_per_second" in latest:
            parts.append((4, f"{count(latest['tokens_per_second'])} tokens/s"))
        if "lr" in latest:
            parts.append((5, f"lr {rate(latest['lr'])}"))
        if (left := self.time_left(step)) is not None:
            parts.append((2, f"{duration(left)} left"))
        return fit(parts, width)

    def time_left(self, step: int) -> float | None:
        """Seconds, at this session's pace since its first step, validations included."""
        since, first = self.start or (0.0, step)
        if not self.total or step <= first:
            return None
        return (time.perf_counter() - since) / (step - first) * max(0, self.total - step)


def validation_line(metrics: dict[str, float], step: int, best: bool, width: int = 100) -> str:
    """What a validation came to."""
    parts = [(0, f"validation at {step:,}"), (1, f"loss {metrics['val/loss']:.4f}")]
    if "val/bits_per_byte" in metrics:
        parts.append((3, f"{metrics['val/bits_per_byte']:.3f} bits/byte"))
    return fit([*parts, (2, "best")] if best else parts, width)


def fit(parts: list[tuple[int, str]], width: int) -> str:
    """Parts of a line, each with its rank, side by side; what does not fit is left out, the least first."""
    parts = list(parts)
    while True:
        line = "  " + "   ".join(text for _, text in parts)
        if len(line) <= width or len(parts) == 1:
            return crop(line, width)
        parts.remove(max(parts))


def total_steps(trainer: L.Trainer) -> int:
    """How many steps there will be in all; 0 where nobody knows."""
    total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < float("inf") else 0
