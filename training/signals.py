"""Ctrl-C and SIGTERM end a run in order: the step is finished, the last state is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

import lightning as L

from training.callback.checkpoint import Checkpoint
from training.loop import between_steps


class Stopped(BaseException):
    """A signal ended the run. No ``Exception``: nothing that mends errors shall swallow it."""


class Signals(L.Callback):
    """A context that notes the first signal and acts on it between two steps; a second one ends at once.

    As a callback it stands last, behind the one that saves.

    over: the run has ended, and only its record is still being written; signals no longer matter.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.over = False
        self._trainer: L.Trainer | None = None
        self._training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._install()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_start(self, trainer: L.Trainer, task: Any) -> None:
        self._install()  # Lightning has put its own in between, which ends a run without saving
        self._trainer = trainer
        self._training = True

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.asked and between_steps(trainer):
            if (saver := self._saver()) is not None:
                saver.save(trainer)
            self._stop(self.asked)

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        if self.asked:  # the checkpoint callback has just saved
            self._stop(self.asked)

    def on_train_end(self, trainer: L.Trainer, task: Any) -> None:
        self._training = False

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(number, self._note)
            self._before.setdefault(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.over:
            return
        if self.asked or not self._training:
            self._stop(number)
        self.asked = number

    def _saver(self) -> Checkpoint | None:
        callbacks = [] if self._trainer is None else self._trainer.callbacks  # type: ignore[attr-defined]
        return next((c for c in callbacks if isinstance(c, Checkpoint)), None)

    def _stop(self, number: int) -> None:
        """End the run here.

        Raises:
            Stopped: Always; says which step can be gone on from, where it is not this one.
        """
        self._training = False
        saver = self._saver()
        saved = None if saver is None else saver.saved_step
        where = ""
        if saved is None:
            where = ", before anything was saved"
        elif self._trainer is not None and saved != self._trainer.global_step:
            where = f"; the last step that was saved is {saved:,}"
        raise Stopped(f"stopped by {signal.Signals(number).name}{where}")
