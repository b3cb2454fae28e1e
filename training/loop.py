"""Lightning's loop over the batches of an epoch, with validations between optimizer steps only."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


def between_steps(trainer: L.Trainer) -> bool:
    """The optimizer has just stepped: there are no gradients that a checkpoint would lose."""
    return not trainer.fit_loop._should_accumulate()


def is_last_step(trainer: L.Trainer) -> bool:
    """Whether the run ends with the step that has just been taken."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return True
    return bool(trainer.is_last_batch) and trainer.current_epoch + 1 == trainer.max_epochs


class StepLoop(_TrainingEpochLoop):
    """Counts validations in optimizer steps, where Lightning counts micro-batches; nothing ends inside a step.

    A validation comes after the last step of the run, and

    - where ``interval`` is a whole number, after every so many steps: of the run, or of an epoch where
      ``check_val_every_n_epoch`` is set;
    - where it is a float, after that share of the steps of an epoch, rounded down to whole steps;
    - where it is None, when the time of ``val_check_interval`` is over.
    """

    def __init__(self, trainer: L.Trainer, interval: int | float | None) -> None:
        replaced = trainer.fit_loop.epoch_loop
        super().__init__(trainer, min_steps=replaced.min_steps, max_steps=replaced.max_steps)
        self.interval = interval

    @property
    def done(self) -> bool:
        """A request to stop waits for the end of the step."""
        return not self._should_accumulate() and super().done

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        if self._should_accumulate():
            return False
        if is_last_step(self.trainer):
            return True
        if self.interval is None:
            return super()._should_check_val_fx(data_fetcher)
        if self.trainer.should_stop and self.trainer.fit_loop._can_stop_early:
            return True
        if not self._should_check_val_epoch():
            return False
        an_epoch = steps_in(self.trainer.num_training_batches, self.trainer.accumulate_grad_batches)
        interval = self.interval if isinstance(self.interval, int) else max(1, int(self.interval * an_epoch))
        whole_run = self.trainer.check_val_every_n_epoch is None
        taken = self.global_step if whole_run else steps_in(self.batch_idx + 1, self.trainer.accumulate_grad_batches)
        return taken % interval == 0


def steps_in(batches: float, accumulated: int) -> int:
    """How many steps an epoch of some micro-batches has; the last may have fewer than the others."""
    return math.ceil(batches / accumulated)
