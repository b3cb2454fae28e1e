"""Going on from a checkpoint: what was learned is taken up, new choices take effect, what can not be is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from registry.errors import CheckpointError, ConfigError
from training.contracts import Tokenizer

RETOLD = ("seed", "data", "objective", "optimizer", "schedule", "trainer", "compile")
"""Parts of a spec, beside the model, that another session may choose otherwise, as far as they are not refused."""


def check(checkpoint: Mapping[str, Any], spec: Mapping[str, Any], tokenizer: Tokenizer, steps: int) -> None:
    """Whether a run with this ``spec`` can go on from a checkpoint of a model like its own.

    Raises:
        CheckpointError: The numbers in it mean something else here: another optimizer's or another vocabulary's.
        ConfigError: It is to end before the step that the checkpoint has reached.
    """
    path, known = spec["ckpt_path"], checkpoint.get("blockwright", {})
    before, here = (known.get("spec") or spec)["optimizer"]["name"], spec["optimizer"]["name"]
    if before != here:
        raise CheckpointError(
            f"optimizer: must be the one that {path} was saved with, whose state it would take up, "
            f"but got {here} and not {before}."
        )
    if known.get("tokenizer") not in (None, tokenizer.state()):
        raise CheckpointError(
            f"tokenizer: must give the ids that the model of {path} has learned, but it is another one, or has learned "
            "another vocabulary from other data."
        )
    done = checkpoint["global_step"]
    if 0 < steps < done:
        raise ConfigError(
            f"trainer: must allow for more than the {done:,} steps that {path} has behind it, but got {steps:,}. "
            f"Set trainer.max_steps={2 * done}, say."
        )


def changes(before: Any, here: Any, path: str) -> Iterator[str]:
    """What is chosen otherwise than ``before``, a line each."""
    if isinstance(before, Mapping) and isinstance(here, Mapping) and before.get("name") == here.get("name"):
        for key in dict.fromkeys([*before, *here]):
            yield from changes(before.get(key), here.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(here, list) and len(before) == len(here):
        for i, (a, b) in enumerate(zip(before, here, strict=True)):
            yield from changes(a, b, f"{path}[{i}]")
    elif before != here:
        yield f"{path}: {_said(here)}, was {_said(before)}"


def all_changes(checkpoint: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """What a run chooses otherwise than the one that saved the checkpoint, a line each."""
    known = checkpoint.get("blockwright", {})
    before = {**known.get("spec", {}), "model": known.get("model", spec["model"])}
    return [line for part in before for line in changes(before[part], spec.get(part), part)]


# The optimizer and the schedule -------------------------------------------------------------------------------------


def choices_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What a new optimizer was told, for each of its groups of parameters."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def take_up(
    saved: dict[str, Any], told: list[dict[str, Any]], before: list[dict[str, Any]], optimizer: Optimizer | None = None
) -> dict[str, Any]:
    """A saved state as an optimizer takes it up that is ``told`` other things than ``before``.

    Moments and steps stay, and so does what an optimizer keeps of its own beside what it was told. The groups of
    ``optimizer``, if given, must have as many parameters as the saved ones.

    Raises:
        CheckpointError: It divides the parameters otherwise.
    """
    groups = saved["param_groups"]
    if len(groups) != len(told):
        raise CheckpointError(
            f"optimizer: must divide the parameters as it did in the checkpoint, in {len(groups)} groups, "
            f"but got {len(told)}."
        )
    held = [len(group["params"]) for group in groups]
    here = held if optimizer is None else [len(group["params"]) for group in optimizer.param_groups]
    if held != here:
        raise CheckpointError(
            f"optimizer: must divide the parameters as it did in the checkpoint, in groups of {held}, but got {here}. "
            "The roles of some have changed since, and with them what decays. Start a new run."
        )
    known = before or [{}] * len(told)
    return saved | {
        "param_groups": [
            group | {name: value for name, value in now.items() if name not in then or then[name] != value}
            for group, now, then in zip(groups, told, known, strict=True)
        ]
    }


class Follow(LambdaLR):
    """The learning rate that was chosen, times the schedule's factor at each step.

    A checkpoint tells it the step and nothing else, so that what a person chooses anew takes effect.
    """

    def __init__(self, optimizer: Optimizer, schedule: Callable[[int], float]) -> None:
        self.schedule = schedule
        super().__init__(optimizer, schedule)

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = [base * self.schedule(self.last_epoch) for base in self.base_lrs]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


# A validation that was due ------------------------------------------------------------------------------------------


def owes_validation(trainer: L.Trainer) -> bool:
    """Whether, behind the step that was just made, a validation is due that has not begun."""
    loop = trainer.fit_loop
    return (
        trainer.training
        and loop._data_fetcher is not None
        and bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))
    )


class Owed:
    """A validation that was due when a checkpoint was saved, and that nobody has seen.

    loops: How far Lightning's loops had come.
    """

    def __init__(self, trainer: L.Trainer, checkpoint: Mapping[str, Any]) -> None:
        self.loops = checkpoint["loops"]
        self._max_steps = trainer.max_steps
        if 0 <= trainer.max_steps <= checkpoint["global_step"]:
            trainer.fit_loop.epoch_loop.max_steps = checkpoint["global_step"] + 1  # else Lightning does not even begin

    def make_up(self, trainer: L.Trainer) -> None:
        """Validate before the first batch, as Lightning does behind one."""
        loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
        first = connector._first_loop_iter
        loop.val_loop.restarting = False  # it begins; it does not go on with one that had begun
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        connector._first_loop_iter = first
        loop.max_steps = self._max_steps


def _said(value: Any) -> str:
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else str(value)
