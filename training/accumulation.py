"""The gradient of an optimizer step is that of the mean over all its targets, however they are divided.

A step has the micro-batches of ``trainer.accumulate_grad_batches`` on each process. They differ in how many targets
they ask for, and their losses are means over those; the mean of such means would weigh a target the more, the fewer
others stand in its micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class StepMean:
    """Weighs the losses of the micro-batches of one step, and scales the sum of their gradients to the mean.

    With n targets in a micro-batch, N in the first micro-batches of all processes together and M in all micro-batches
    of the step, a loss weighs n / N before its backward, and the gradients are divided by M / N before they are used.
    The first weight is 1 on a single process, so that a step of one micro-batch costs nothing, and no number leaves
    the range of a 16-bit float as a sum over targets would.

    Args:
        everywhere: Sums a number over all processes.
        world: How many processes there are; the strategy averages their gradients.
    """

    def __init__(self, everywhere: Callable[[Tensor], Tensor], world: int) -> None:
        self.everywhere = everywhere
        self.world = world
        self.totals: list[Tensor] = []  # targets of each micro-batch of this step, over all processes

    def weigh(self, loss: Tensor, targets: Tensor) -> Tensor:
        """The loss whose gradients may be added up, from a micro-batch's mean over ``targets`` targets; scalars."""
        targets = targets.to(torch.promote_types(loss.dtype, torch.float32))
        total = targets if self.world == 1 else self.everywhere(targets.clone())
        self.totals.append(total)
        return loss * (targets * self.world / _divisor(self.totals[0]))

    def finish(self, parameters: Iterable[Tensor]) -> None:
        """Scale the gradients that have been added up to those of the mean over all targets, and begin a new step."""
        grads = [p.grad for p in parameters if p.grad is not None]
        if len(self.totals) > 1 and grads:  # after one micro-batch they are the mean's already
            torch._foreach_mul_(grads, _divisor(self.totals[0]) / _divisor(torch.stack(self.totals).sum()))
        self.totals = []


def _divisor(total: Tensor) -> Tensor:
    """``total``, or 1 where there is no target: all that would be divided is zero then."""
    return torch.where(total > 0, total, 1.0)
