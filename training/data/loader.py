"""Batches in an order that is a function of (seed, epoch, index) and nothing else.

A loader has one number to remember, how many batches it has given, so that a run can be taken up anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from registry.errors import DataError
from training.batch import Batch
from training.console import console
from training.contracts import Data, Tokenizer

ORDER, DRAW, VALIDATION = 1, 2, 3
"""What random numbers are for; no two streams are the same."""


def generator(purpose: int, *key: int) -> np.random.Generator:
    """A generator of its own for each purpose and key."""
    return np.random.default_rng([purpose, *(k % 2**63 for k in key)])


class Loader:
    """Training batches: ``length`` of them an epoch, made by ``make(epoch, index)`` when they are asked for.

    Each of ``world`` processes gives every ``world``-th batch, from ``rank`` on. Batches are made in this process: it
    takes microseconds, less than to bring them from another one.

    An iteration goes on where the last one stopped, in the next epoch at the end of one. Lightning finds
    ``state_dict`` and ``load_state_dict`` by itself and keeps them in its checkpoints.
    """

    def __init__(self, make: Callable[[int, int], Batch], length: int, rank: int = 0, world: int = 1) -> None:
        self.make = make
        self.length = length
        self.rank = rank
        self.world = world
        self.given = 0
        if world > length and rank == 0:
            console.print(
                f"{world} processes train on {length} batch{'es' * (length > 1)} of data: some take the same ones. "
                "Use more data, a smaller data.batch_size or fewer trainer.devices.",
                "bad",
            )

    def __len__(self) -> int:
        """Batches of an epoch in this process; at least one, the same in all."""
        return max(1, self.length // self.world)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            epoch, index = divmod(self.given, len(self))
            batch = self.make(epoch, (index * self.world + self.rank) % self.length)
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.given = state["given"]


class Fixed:
    """The same ``length`` batches in every iteration, made by ``make(index)``: for validation."""

    def __init__(self, make: Callable[[int], Batch], length: int, rank: int = 0, world: int = 1) -> None:
        self.make = make
        self.length = length
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        """Batches in this process; at least one, the same in all."""
        return max(1, self.length // self.world)

    def __iter__(self) -> Iterator[Batch]:
        for index in range(len(self)):
            yield self.make((index * self.world + self.rank) % self.length)


def check(batch: Batch, tokenizer: Tokenizer, max_length: int) -> None:
    """Whether a model can take ``batch``.

    Raises:
        DataError: An id is beyond the vocabulary, or a row is too long.
    """
    for tokens in (batch.tokens, batch.source):
        if tokens is None:
            continue
        if tokens.shape[1] > max_length:
            raise DataError(
                f"rows must have at most max_length tokens, but got {tokens.shape[1]} and {max_length}. "
                f"Set model.max_length={tokens.shape[1]}, or a shorter data.length."
            )
        check_ids(tokens.numpy(), tokenizer)


def check_ids(ids: np.ndarray, tokenizer: Tokenizer) -> None:
    """Whether all ids are in the vocabulary.

    Raises:
        DataError: One is not.
    """
    if ids.size and not (ids.min() >= 0 and ids.max() < tokenizer.vocab_size):
        raise DataError(
            f"token ids must be below {tokenizer.vocab_size}, the size of the tokenizer's vocabulary, "
            f"but got ids from {ids.min()} to {ids.max()}."
        )


def place(data: Data) -> tuple[int, int]:
    """Which of the processes that train together this one is, and how many there are."""
    trainer = data.trainer
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
