"""Generated pairs that need memory and order, and no knowledge: a row of symbols, and the same row or its reverse.

Graves et al. 2014, https://arxiv.org/abs/1410.5401
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np

from registry import register
from registry.errors import DataError
from training.batch import Batch
from training.contracts import Data, Example, Gives, Objective, Tokenizer
from training.data.entropy import counts, unigram_entropy
from training.data.loader import DRAW, VALIDATION, Fixed, Loader, check, generator, place

ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits


@register("data/copy")
@register("data/reverse", order="reversed")
class SymbolPairs(Data):
    """Random rows of symbols, to be repeated in the same or in reversed order.

    Every epoch has new pairs; those of validation are always the same.

    Args:
        order: ``same`` as in the source, or ``reversed``.
        symbols: How many different symbols there are: letters, then digits.
        shortest: Symbols of a row, at least.
        longest: Symbols of a row, at most.
        pairs: Pairs an epoch.
        batch_size: Pairs a batch.
        val_batches: Batches a validation.

    Raises:
        ValueError: A choice is out of bounds, or a pair is longer than the model takes.
    """

    gives: ClassVar[Gives] = "pairs"

    def __init__(
        self,
        tokenizer: Tokenizer,
        objective: Objective,
        max_length: int,
        seed: int,
        /,
        *,
        order: Literal["same", "reversed"] = "same",
        symbols: int = 26,
        shortest: int = 4,
        longest: int = 16,
        pairs: int = 32_000,
        batch_size: int = 32,
        val_batches: int = 16,
    ) -> None:
        super().__init__(tokenizer, objective, max_length, seed)
        if order not in ("same", "reversed"):
            raise ValueError(f"order must be 'same' or 'reversed', but got {order!r}.")
        if not 1 <= symbols <= len(ALPHABET):
            raise ValueError(f"symbols must be from 1 to {len(ALPHABET)}, but got {symbols}.")
        if not 1 <= shortest <= longest:
            raise ValueError(f"shortest must be from 1 to longest, but got {shortest} and {longest}.")
        if batch_size < 1 or val_batches < 1:
            raise ValueError(f"batch_size and val_batches must be at least 1, but got {batch_size} and {val_batches}.")
        if pairs < batch_size:
            raise ValueError(f"pairs must be at least batch_size, but got {pairs} and {batch_size}.")
        if (room := objective.room(longest, longest)) > max_length:
            raise ValueError(
                f"longest must leave room for a pair in the model's max_length, but rows of {longest} symbols take "
                f"{room} tokens of {max_length}. Set a shorter data.longest, or model.max_length={room}."
            )
        self.order = order
        self.alphabet = ALPHABET[:symbols]
        self.shortest = shortest
        self.longest = longest
        self.pairs = pairs
        self.batch_size = batch_size
        self.val_batches = val_batches
        self._facts: dict[str, Any] = {}

    def setup(self, stage: str | None = None) -> None:
        if self._facts:
            return
        self.tokenizer.train([self.alphabet])
        self.ids = np.concatenate([self.tokenizer.encode(symbol) for symbol in self.alphabet])
        if len(self.ids) != len(self.alphabet):
            raise DataError(
                f"every symbol must be one token, but the {len(self.alphabet)} symbols are {len(self.ids)}. "
                "Use tokenizer=byte or tokenizer=char."
            )
        check(self._train_batch(0, 0), self.tokenizer, self.max_length)

        train = self._counts([generator(DRAW, 0, index, self.seed) for index in range(self.val_batches)])
        val = self._counts([generator(VALIDATION, index) for index in range(self.val_batches)])
        mean = (self.shortest + self.longest) / 2
        n_val, n_ends = int(val.sum()), int(val[self.tokenizer.eos])
        rule = [self.order, self.alphabet, self.shortest, self.longest]
        self._facts = {
            "fingerprint": hashlib.sha256(repr(rule).encode()).hexdigest(),
            "train_tokens": round(self.pairs * (mean + 1)),
            "val_tokens": n_val,
            "train_bytes": round(self.pairs * mean),
            "val_bytes": n_val - n_ends,
            "bytes_per_token": (n_val - n_ends) / n_val,
            "unigram_entropy": unigram_entropy(train, val),
            "source": f"generated: {self.shortest} to {self.longest} of {len(self.alphabet)} symbols, "
            f"to be repeated ({self.order} order)",
            "prompt": self.tokenizer.decode(self._sources(generator(DRAW, 0, 0, self.seed))[0]),
            "notes": [],
        }

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    def train_dataloader(self) -> Loader:
        return Loader(self._train_batch, self.pairs // self.batch_size, *place(self))

    def val_dataloader(self) -> Fixed:
        def batch(index: int) -> Batch:
            return self._batch(generator(VALIDATION, index))

        return Fixed(batch, self.val_batches, *place(self))

    def samples(self) -> Iterator[str]:
        for index in range(self.val_batches):
            yield from map(self.tokenizer.decode, self._sources(generator(VALIDATION, index)))

    def _train_batch(self, epoch: int, index: int) -> Batch:
        return self._batch(generator(DRAW, epoch, index, self.seed))

    def _batch(self, rng: np.random.Generator) -> Batch:
        examples = self._examples(rng)
        step_seed = int(rng.integers(2**63))
        return self.objective.batch(examples, rng)._replace(step_seed=step_seed)

    def _examples(self, rng: np.random.Generator) -> list[Example]:
        lengths = rng.integers(self.shortest, self.longest + 1, self.batch_size)
        said = np.split(self.ids[rng.integers(len(self.ids), size=lengths.sum())], np.cumsum(lengths)[:-1])
        step = 1 if self.order == "same" else -1
        return [Example(row[::step], row) for row in said]

    def _sources(self, rng: np.random.Generator) -> list[np.ndarray]:
        return [example.source for example in self._examples(rng) if example.source is not None]

    def _counts(self, generators: list[np.random.Generator]) -> np.ndarray:
        """How often each id is asked for, ends included, in one batch of each generator. (V,)"""
        rows = [example.tokens for rng in generators for example in self._examples(rng)]
        found = counts(np.concatenate(rows), self.vocab_size)
        found[self.tokenizer.eos] += len(rows)
        return found
