"""What is seen of the parts of a run, for comparison with what other choices build."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import lightning as L

from blocks.laws import effects
from blocks.laws.effects import Observations
from training.contracts import Objective, Optimizer, Schedule, Tokenizer
from training.laws.data import FEW, Source
from training.laws.objectives import batch_of, tensors
from training.laws.optimizers import set_gradients
from training.laws.running import trip
from training.laws.trying import LEARNED, UNSEEN, examples, small_model, trained

MANY = 40
"""How many batches are compared."""


def observe(block: Any) -> Observations:
    """What can be seen of a block from outside: the cheapest first."""
    look = next((look for kind, look in LOOKS if isinstance(block, kind)), effects.observe)
    return look(block)


def _tokenizer(tokenizer: Tokenizer) -> Observations:
    learned = trained(copy.deepcopy(tokenizer))
    yield "its vocabulary", lambda: [learned.vocab_size, learned.text_ids.start]
    yield "its ids", lambda: [learned.encode(text).tolist() for text in (*LEARNED, *UNSEEN)]
    yield "its text", lambda: [learned.decode(learned.encode(text)) for text in (*LEARNED, *UNSEEN)]


def _objective(objective: Objective) -> Observations:
    yield "its window", lambda: objective.window(objective.max_length)
    for seed in range(4):
        given = examples(objective, rows=4, seed=seed)
        yield "its batches", lambda given=given, seed=seed: tensors(batch_of(objective, given, seed))  # type: ignore[misc]


def _source(source: Source) -> Observations:
    data = source.make(0)
    yield "its facts", lambda: data.facts
    yield "its loaders", lambda: [len(data.train_dataloader()), len(data.val_dataloader())]
    yield "its batches", lambda: [tensors(batch) for batch in islice(data.train_dataloader(), MANY)]
    yield "its validation", lambda: [tensors(batch) for batch in islice(data.val_dataloader(), MANY)]
    yield "its samples", lambda: list(islice(data.samples(), FEW))


def _optimizer(optimizer: Optimizer) -> Observations:
    def stepped(n: int) -> dict[str, Any]:
        model = small_model().double()
        steps = optimizer(model)
        for number in range(n):
            set_gradients(model, 10.0 ** -(4 * number))
            steps.step()
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    for n in (1, 3):
        yield f"its parameters after {n} steps", lambda n=n: stepped(n)  # type: ignore[misc]


def _schedule(schedule: Schedule) -> Observations:
    steps = schedule.max_steps if schedule.max_steps > 0 else 1000
    yield "its factors", lambda: [schedule(step) for step in range(steps + 5)]


def _callback(callback: L.Callback) -> Observations:
    """What it prints, saves and stops, in a run that learns and in one that does not."""
    for what, lr in (("learns", 1e-1), ("stands still", 0.0)):
        yield f"a run that {what}", lambda lr=lr: tuple(trip(copy.deepcopy(callback), lr))  # type: ignore[misc]


LOOKS: list[tuple[Any, Callable[[Any], Observations]]] = [
    (Tokenizer, _tokenizer),
    (Objective, _objective),
    (Source, _source),
    (Optimizer, _optimizer),
    (Schedule, _schedule),
    (L.Callback, _callback),
]
