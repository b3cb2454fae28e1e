"""Documents as one long row of tokens: what data of running text shares."""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from registry.errors import DataError
from training.batch import Batch
from training.contracts import Data, Objective, Tokenizer
from training.data import cache
from training.data.documents import Document, fingerprint
from training.data.entropy import counts, unigram_entropy
from training.data.loader import DRAW, VALIDATION, Fixed, Loader, check, check_ids, generator, place
from training.data.trees import Nesting, Rule
from training.data.windows import Windows

Packing = Literal["stream", "documents"]

HEAD = 1 << 16
"""Bytes of a validation document that prompts are taken from."""

PROMPT = 32
"""Characters of a prompt, at most."""

LINES_BETWEEN = 20
"""Lines from one prompt to the next in a document."""


class RunningText(Data):
    """Windows of one length, with eos between documents; in every epoch they are cut at other places.

    Raises:
        ValueError: A choice is out of bounds, or a window is longer than the model takes.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        objective: Objective,
        max_length: int,
        seed: int,
        /,
        *,
        batch_size: int,
        length: int | None,
        val_fraction: float,
        val_batches: int | None,
        packing: Packing,
        trees: Rule,
    ) -> None:
        super().__init__(tokenizer, objective, max_length, seed)
        length = max_length if length is None else length
        if not 0 < length <= max_length:
            raise ValueError(
                f"length must be from 1 to the model's max_length, but got {length} and {max_length}. "
                "Set a shorter data.length, or a longer model.max_length."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got {batch_size}.")
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must be between 0 and 1, but got {val_fraction}.")
        if val_batches is not None and val_batches < 1:
            raise ValueError(f"val_batches must be at least 1, or null for all, but got {val_batches}.")
        if packing not in ("stream", "documents"):
            raise ValueError(f"packing must be 'stream' or 'documents', but got {packing!r}.")
        if packing == "documents" and not objective.packs:
            raise ValueError(
                f"packing must be 'stream' for {type(objective).__name__}, which takes a window as one document, "
                "but got 'documents'."
            )
        if trees not in ("none", "nesting"):
            raise ValueError(f"trees must be 'none' or 'nesting', but got {trees!r}.")
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.val_batches = val_batches
        self.window = objective.window(length)
        self.end = tokenizer.eos if packing == "documents" else None
        if trees == "nesting":
            self.trees = "made"
            objective.trees = Nesting(tokenizer).heads
        self._facts: dict[str, Any] = {}

    @abstractmethod
    def documents(self) -> tuple[list[Document], list[Document]]:
        """What to train on, and what to validate on.

        Raises:
            DataError: There is nothing, or it can not be read.
        """

    @property
    @abstractmethod
    def source(self) -> str:
        """What the text is, for people."""

    def setup(self, stage: str | None = None) -> None:
        if self._facts:
            return
        train, val = self.documents()
        digests = fingerprint(train), fingerprint(val)
        self.tokenizer.train(piece for document in train for piece in document.pieces())
        self.train = self._windows("training", train, digests[0])
        self.val = self._windows("validation", val, digests[1])
        self.val_documents = val
        check(self._train_batch(0, 0), self.tokenizer, self.max_length)

        val_bytes = sum(d.size for d in val)
        self._facts = {
            "fingerprint": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "train_tokens": len(self.train.tokens),
            "val_tokens": len(self.val.tokens),
            "train_bytes": sum(d.size for d in train),
            "val_bytes": val_bytes,
            "bytes_per_token": val_bytes / len(self.val.tokens),
            "unigram_entropy": unigram_entropy(
                counts(self.train.tokens, self.vocab_size), counts(self.val.tokens, self.vocab_size)
            ),
            "source": self.source,
            "prompt": self._prompt(train),
            "notes": self._notes(),
        }

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    def train_dataloader(self) -> Loader:
        return Loader(self._train_batch, self.train.batches(self.batch_size), *place(self))

    def val_dataloader(self) -> Fixed:
        most = None if self.val_batches is None else self.val_batches * self.batch_size
        starts = self.val.spread(most)
        rows = np.split(starts, range(self.batch_size, len(starts), self.batch_size))

        def batch(index: int) -> Batch:
            return self._batch(self.val, rows[index], generator(VALIDATION, index))

        return Fixed(batch, len(rows), *place(self))

    def samples(self) -> Iterator[str]:
        """How the first line of each validation document begins, then lines further on."""
        heads = (d.read(HEAD).decode(errors="ignore").splitlines() for d in self.val_documents)
        lines = [[line[:PROMPT] for line in head if line.strip()] for head in heads]
        for at in range(0, max(map(len, lines)), LINES_BETWEEN):
            yield from (some[at] for some in lines if at < len(some))

    def _prompt(self, documents: list[Document]) -> str:
        """How a line of the training text begins: some whole words, or what fits where there are none.

        It leaves half of a row for an answer, and can be copied from a terminal.
        """
        lines = [line.strip() for line in documents[0].read(HEAD).decode(errors="ignore").splitlines()]
        lines = [line for line in lines if line and line.isprintable()]
        plain = (line for line in lines if line[0].isalpha() and " " in line and "'" not in line)
        line = next(plain, (lines or [""])[0])[:PROMPT]
        start = line.find(" ", PROMPT // 4)
        prompt = line if start < 0 else line[:start]
        while len(prompt) > 1 and len(self.tokenizer.encode(prompt)) > self.max_length // 2:
            prompt = prompt[:-1]
        return prompt.rstrip()

    def _notes(self) -> list[str]:
        there = self.train.an_epoch
        if self.batch_size <= there:
            return []
        return [
            f"a batch has {self.batch_size:,} windows, but the training text only {there:,}: each batch repeats them. "
            "Use more text, a smaller data.batch_size or a shorter data.length."
        ]

    def _train_batch(self, epoch: int, index: int) -> Batch:
        starts = self.train.shuffled(self.batch_size, self.seed, epoch, index)
        return self._batch(self.train, starts, generator(DRAW, epoch, index, self.seed))

    def _batch(self, windows: Windows, starts: np.ndarray, rng: np.random.Generator) -> Batch:
        step_seed = int(rng.integers(2**63))
        batch = self.objective.batch(windows.examples(starts, self.end), rng)._replace(step_seed=step_seed)
        return batch if self.objective.trees is None else batch.with_trees(self.objective.trees)

    def _windows(self, what: str, documents: list[Document], digest: str) -> Windows:
        """The tokens of documents, from the cache if they are there."""

        def ids() -> Iterator[np.ndarray]:
            for i, document in enumerate(documents):
                if i:
                    yield np.array([self.tokenizer.eos])
                for piece in document.pieces():
                    part = self.tokenizer.encode(piece)
                    check_ids(part, self.tokenizer)
                    yield part

        tokens = cache.kept(f"{digest} {_identity(self.tokenizer)}", self.vocab_size, ids)
        if len(tokens) < self.window:
            more = "a larger data.val_fraction, " if what == "validation" else ""
            raise DataError(
                f"the {what} text must be at least one window of {self.window} tokens, but has {len(tokens)}. "
                f"Use more text, {more}or a shorter data.length."
            )
        return Windows(tokens, self.window, self.objective.overlap)


def _identity(tokenizer: Tokenizer) -> str:
    """What the ids of a text depend on: what the tokenizer knows, and its code, which a user may be writing."""
    kind = type(tokenizer)
    try:
        code = inspect.getsource(kind)
    except (OSError, TypeError):
        code = kind.__qualname__
    return json.dumps([code, tokenizer.state(), tokenizer.eos], sort_keys=True)
