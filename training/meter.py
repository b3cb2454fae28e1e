"""What a run measures while it trains: losses, speed, the best validation; and whether the loss is still a number."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
import torch
from torch import Tensor

from registry.errors import DIVERGED, BlockwrightError
from training.loop import between_steps, is_last_step


class DivergedError(BlockwrightError):
    """The loss stopped being a number."""

    status = DIVERGED


class Meter(L.Callback):
    """Reads the losses every ``log_every_n_steps`` steps, in one go, and hands them to the loggers.

    Other callbacks read ``latest`` and ``best``; the run puts the meter in front of them.

    Args:
        train_bytes, val_bytes: Bytes of text a token stands for, in the two halves of the data. 0: not text.
    """

    def __init__(self, train_bytes: float = 0.0, val_bytes: float = 0.0) -> None:
        self.bytes_per_token = {"train": train_bytes, "val": val_bytes}
        self.latest: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.history: list[dict[str, float]] = []  # one entry a validation
        self.tokens = 0  # since the very first step, over all sessions
        self.seconds = 0.0  # of training alone, without validation and saving
        self.first_step = 0  # of this session
        self._timed_tokens = 0  # what was trained in `seconds`
        self._losses: list[tuple[int, dict[str, Tensor], Tensor]] = []  # step, means, what they are means over
        self._counts: list[Tensor | int] = []
        self._read_step = 0
        self._warm = False
        self._since: float | None = None  # None while the clock stands still

    @property
    def tokens_per_second(self) -> float:
        """Over this session, without its first step, which pays for warming up."""
        return self._timed_tokens / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: L.Trainer, task: Any) -> None:
        self.first_step = self._read_step = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, task: Any, batch: Any, batch_idx: int) -> None:
        if self._since is None and self._warm:
            self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        within = not between_steps(trainer)  # Lightning counts a step when it is over
        self._losses.append((trainer.global_step + within, task.step_metrics, task.step_weight))
        self._counts.append(task.step_tokens)
        if not self._warm:
            self._count()
            self._warm = True
        if is_last_step(trainer) or trainer.global_step >= self._read_step + trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self.read(trainer, task)

    def on_validation_start(self, trainer: L.Trainer, task: Any) -> None:
        if self._losses:
            self.read(trainer, task)
        self._since = None

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        metrics = task.val_metrics = self._with_bits(task.val_metrics, "val")  # other callbacks find them there
        self.latest |= metrics
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DivergedError(_diverged(f"{name} became {value}", trainer.global_step))
        entry = {"step": trainer.global_step, **metrics}
        self.history.append(entry)
        if not self.best or metrics["val/loss"] < self.best["val/loss"]:
            self.best = entry
        self._log(trainer, metrics)

    def read(self, trainer: L.Trainer, task: Any) -> None:
        """Look at the losses since the last time; the one place where a step waits for the device.

        What is logged are means over all targets since then, on all processes.

        Raises:
            DivergedError: One of the losses is not a finite number.
        """
        steps = [step for step, _, _ in self._losses]
        weights = torch.stack([weight for _, _, weight in self._losses]).tolist()
        read = {
            name: torch.stack([metrics[name] for _, metrics, _ in self._losses]).float().tolist()
            for name in self._losses[0][1]
        }
        self._losses = []
        self._read_step = trainer.global_step
        sums = [sum(weights), *(sum(w * v for w, v in zip(weights, values, strict=True)) for values in read.values())]
        weight, *totals = task.everywhere(torch.tensor(sums, dtype=torch.float64)).tolist()
        for step, loss in zip(steps, read.get("total", read["loss"]), strict=True):
            if not math.isfinite(loss):
                raise DivergedError(_diverged(f"the loss became {loss}", step))
        metrics = {f"train/{name}": total / weight for name, total in zip(read, totals, strict=True) if weight}
        metrics = self._with_bits(metrics, "train")
        if task.grad_norm is not None:
            metrics["train/grad_norm"] = float(task.grad_norm)
        metrics["lr"] = task.step_lr
        if speed := self._count():
            metrics["tokens_per_second"] = speed
        metrics["tokens"] = self.tokens
        self.latest |= metrics
        self._log(trainer, metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "history": self.history, "tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.history, self.tokens = state_dict["best"], state_dict["history"], state_dict["tokens"]

    def _count(self) -> float:
        """Take up the tokens since the last time; how many a second, 0 where the clock did not run."""
        tokens = int(sum(self._counts))
        self._counts = []
        self.tokens += tokens
        if self._since is None:
            return 0.0
        now = time.perf_counter()
        elapsed, self._since = max(0.0, now - self._since), now
        self.seconds += elapsed
        self._timed_tokens += tokens
        return tokens / elapsed if elapsed else 0.0

    def _with_bits(self, metrics: dict[str, float], half: str) -> dict[str, float]:
        """Losses of text also in bits a byte, which do not depend on the tokenizer."""
        size = self.bytes_per_token[half]
        if size and f"{half}/loss" in metrics:
            metrics = metrics | {f"{half}/bits_per_byte": metrics[f"{half}/loss"] / math.log(2) / size}
        return metrics

    def _log(self, trainer: L.Trainer, metrics: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)


def _diverged(what: str, step: int) -> str:
    return f"{what} at step {step}. A lower optimizer.lr, a longer warm-up or trainer.gradient_clip_val=1 may help."
