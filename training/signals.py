"""Ctrl-C and SIGTERM end a run in order: the step is finished, the last state is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

import lightning as L

from training.callback.checkpoint import Checkpoint


class Stopped(BaseException):
    """A signal ended the run. No ``Exception``: nothing that mends errors shall swallow it."""

    def __init__(self, number: int, saved: bool) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.saved = saved


class Signals(L.Callback):
    """A context that notes the first signal and acts on it between two steps; a second one ends at once.

    As a callback it stands last, behind the one that saves.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
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
        self._training = True

    def on_train_batch_end(self, trainer: L.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.asked:
            saver = next((c for c in trainer.callbacks if isinstance(c, Checkpoint)), None)  # type: ignore[attr-defined]
            if saver is not None:
                saver.save(trainer)
            self._stop(saved=saver is not None)

    def on_validation_end(self, trainer: L.Trainer, task: Any) -> None:
        if self.asked:  # the checkpoint callback has just saved
            self._stop(saved=any(isinstance(c, Checkpoint) for c in trainer.callbacks))  # type: ignore[attr-defined]

    def on_train_end(self, trainer: L.Trainer, task: Any) -> None:
        self._training = False

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(number, self._note)
            self._before.setdefault(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self._training:
            self._training = False
            raise Stopped(number, saved=False)
        self.asked = number

    def _stop(self, saved: bool) -> None:
        assert self.asked is not None
        raise Stopped(self.asked, saved)
