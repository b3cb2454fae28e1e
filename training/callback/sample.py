"""Generates a sample from the model when it has been trained."""

from __future__ import annotations

from itertools import islice
from typing import Any

import lightning as L

from registry import register
from training.console import console, printable
from training.task import SequenceTask


@register("callback/sample")
class Sample(L.Callback):
    """Prints what a decoder makes of some prompts from the validation data, once training is over.

    Args:
        n: How many prompts.
        max_new_tokens: How long an answer may be; less where ``max_length`` ends it.
        temperature: How freely tokens are drawn; 0 always takes the likeliest.

    Raises:
        ValueError: ``n`` or ``max_new_tokens`` is not positive, or ``temperature`` is negative or infinite.
    """

    def __init__(self, *, n: int = 1, max_new_tokens: int = 200, temperature: float = 0.7) -> None:
        if n < 1 or max_new_tokens < 1:
            raise ValueError(f"n and max_new_tokens must be at least 1, but got {n} and {max_new_tokens}.")
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number and not negative, but got {temperature}.")
        self.n, self.max_new_tokens, self.temperature = n, max_new_tokens, temperature

    def on_fit_end(self, trainer: L.Trainer, task: Any) -> None:
        from training.generate import answers, ending

        if not isinstance(task, SequenceTask) or task.objective.shape == "encoder" or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        prompts = [ending(task.objective, text) for text in islice(data.samples(), self.n)]
        if not prompts:
            return
        most = task.objective.max_length // 2
        try:
            said = answers(
                task.model,
                task.objective,
                prompts,
                max_new_tokens=min(self.max_new_tokens, most),
                temperature=self.temperature,
            )
        except ValueError as refusal:  # a model without a state has been trained all the same
            console.print(f"no sample: {refusal}", "dim")
            return
        console.print()
        console.print("samples" if len(prompts) > 1 else "sample", "bold")
        for prompt, (answer, *_) in zip(prompts, said, strict=True):
            show(prompt, answer, follows=task.objective.gives == "text")


def show(prompt: str, answer: str, follows: bool) -> None:
    """A prompt and how the model goes on, set off from what the program says."""
    told = console.style(printable(prompt), "dim") + ("" if follows else "  ->  ") + printable(answer)
    for line in told.splitlines() or [""]:
        console.print(f"  {line.rstrip()}")
