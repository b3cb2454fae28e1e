"""The one LightningModule: a model, an objective, an optimizer and a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from blocks.contracts import Model
from training.accumulation import StepMean
from training.batch import Batch
from training.contracts import Objective, Optimizer, Schedule
from training.resume import Follow, Owed, choices_of, owes_validation, take_up


class SequenceTask(L.LightningModule):
    """Trains ``model`` on what ``objective`` asks.

    It logs nothing by itself, so that a step costs no more than a bare loop's: what a step and a validation came to
    stands in ``step_metrics`` and ``val_metrics``, for callbacks to read when they need it.

    The gradient of an optimizer step is that of the mean over all its targets, whatever the micro-batches and processes
    that they are divided among; it is clipped and used as such.

    Args:
        model: What learns.
        objective: Makes the loss of a batch.
        optimizer: Builds the optimizer over the model's parameters.
        schedule: The factor on the learning rate at each step.
        compiled: Whether ``torch.compile`` makes one program of model and loss.
        keep: Plain containers that go into every checkpoint.
    """

    step_metrics: dict[str, Tensor]
    """Of the last micro-batch: ``loss``, the cross-entropy in nats a target, and the losses that blocks reported."""

    step_weight: Tensor
    """What these are means over: the targets of the last micro-batch, in this process."""

    step_tokens: Tensor | int
    """Real tokens in the last micro-batch, a source's included."""

    step_lr: float
    """The learning rate (of the first group of parameters) that the last step used."""

    grad_norm: Tensor | None = None
    """Norm of the gradient at the last step, before clipping; None where nothing clips."""

    val_metrics: dict[str, float]
    """Averages over the targets of the last validation."""

    _weight: Tensor
    _totals: dict[str, Tensor | float]

    def __init__(
        self,
        model: Model,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        compiled: bool = False,
        keep: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.schedule = schedule
        self.keep = keep or {}
        self.told: list[dict[str, Any]] = []  # what the config chose for each group of parameters
        self.told_before: list[dict[str, Any]] = []  # the same, of the run that this one goes on from
        self.owed: Owed | None = None
        self._mean: StepMean | None = None
        self.loss: Callable[[Model, Batch], tuple[Tensor, dict[str, Tensor]]] = objective.loss
        if compiled:
            self.loss = torch.compile(objective.loss)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed_dropout(batch.step_seed, self.device)
        loss, parts = self.loss(self.model, batch._replace(step_seed=0))  # a seed is no reason to compile anew
        self.step_metrics = by_name(loss, parts)
        self.step_tokens = count_tokens(batch)
        self.step_weight = self.objective.weight(batch)
        if self._mean is None:
            self._mean = StepMean(self.everywhere, self.trainer.world_size)
        # Lightning divides what is returned here by the number of micro-batches of a full step.
        return self._mean.weigh(loss, self.step_weight) * float(self.trainer.accumulate_grad_batches)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        def closure() -> Any:
            """The last micro-batch of the step, and then the gradients of all of them."""
            result = None if optimizer_closure is None else optimizer_closure()
            if self._mean is not None:
                self._mean.finish(p for group in optimizer.param_groups for p in group["params"])
            return result

        self.step_lr = float(optimizer.param_groups[0]["lr"])
        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, parts = self.loss(self.model, batch._replace(step_seed=0))
        weight = self.objective.weight(batch)
        self._weight = self._weight + weight
        for name, value in by_name(loss, parts).items():
            # A batch without a target has no mean; it is weightless, not NaN.
            total = torch.where(weight > 0, value * weight, 0.0).double()
            self._totals[name] = self._totals.get(name, 0.0) + total

    def on_validation_epoch_start(self) -> None:
        self._weight = torch.zeros((), dtype=torch.float64, device=self.device)
        self._totals = {}

    def on_validation_epoch_end(self) -> None:
        weight = self.everywhere(self._weight)
        self.val_metrics = {
            f"val/{name}": (self.everywhere(total) / weight).item() for name, total in self._totals.items()
        }
        self.log_dict(self.val_metrics, logger=False, sync_dist=True)  # where Lightning's own callbacks look

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.model)
        self.told = choices_of(optimizer)
        optimizer.register_load_state_dict_pre_hook(lambda to, saved: take_up(saved, self.told, self.told_before, to))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": Follow(optimizer, self.schedule), "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: TorchOptimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if not gradient_clip_val:
            return
        # Lightning refuses to clip before a fused optimizer, for the sake of loss scaling alone.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.model.parameters(), gradient_clip_val)
        else:
            self.grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def on_train_start(self) -> None:
        if self.owed is not None:
            self.owed.make_up(self.trainer)
            self.owed = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        owed = owes_validation(self.trainer)
        checkpoint["blockwright"] = {**self.keep, "told": self.told, "owes_validation": owed}
        if self.owed is not None:
            checkpoint["loops"] = self.owed.loops  # no batch has been read since

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        known = checkpoint.get("blockwright", {})
        self.told_before = known.get("told", [])
        if known.get("owes_validation"):
            self.owed = Owed(self.trainer, checkpoint)

    def everywhere(self, value: Tensor | float) -> Tensor:
        """The sum over all processes."""
        if self.trainer.world_size == 1:
            return torch.as_tensor(value)
        return self.trainer.strategy.reduce(torch.as_tensor(value, device=self.device), reduce_op="sum")


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed the generator that dropout draws from; ``torch.manual_seed`` seeds all devices, at ninety times the cost."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def by_name(loss: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The cross-entropy as ``loss``; the sum that is minimised as ``total``, where blocks have added to it."""
    others = {name: value.detach() for name, value in parts.items() if name != "nats"}
    total = loss.detach()
    return {"loss": parts.get("nats", total).detach(), **others, **({"total": total} if others else {})}


def count_tokens(batch: Batch) -> Tensor | int:
    """How many tokens are real, without waiting for the device."""
    count: Tensor | int = batch.tokens.numel() if batch.layout.dense else batch.layout.real.sum()
    if batch.source is not None and batch.source_layout is not None:
        layout = batch.source_layout
        count = count + (batch.source.numel() if layout.dense else layout.real.sum())
    return count
