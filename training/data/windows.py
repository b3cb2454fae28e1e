"""A long row of tokens, cut into windows of one length."""

from __future__ import annotations

import numpy as np

from training.contracts import Example
from training.data.loader import ORDER, generator


class Windows:
    """``tokens`` in windows of ``size``, each of which begins with the last ``overlap`` tokens of the one before."""

    def __init__(self, tokens: np.ndarray, size: int, overlap: int) -> None:
        self.tokens = tokens
        self.size = size
        self.overlap = overlap
        self.stride = size - overlap
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def __len__(self) -> int:
        """How many fit."""
        return max(0, (len(self.tokens) - self.overlap) // self.stride)

    def batches(self, rows: int) -> int:
        """How many batches of ``rows`` windows make an epoch. At least one, which may repeat windows."""
        return max(1, self.an_epoch // rows)

    def shuffled(self, rows: int, seed: int, epoch: int, index: int) -> np.ndarray:
        """Where the windows of a training batch start. (rows,)"""
        if self._order is None or self._order[0] != (seed, epoch):
            self._order = (seed, epoch), self._shuffle(rows, generator(ORDER, epoch, seed))
        return self._order[1][index * rows : (index + 1) * rows]

    def spread(self, most: int | None) -> np.ndarray:
        """Where all windows start, or ``most`` of them from all over the text. (n,)"""
        n = len(self) if most is None else min(most, len(self))
        return np.linspace(0, len(self) - 1, n).round().astype(np.int64) * self.stride

    def examples(self, starts: np.ndarray, end: int | None) -> list[Example]:
        """The windows that begin at ``starts``; documents are told apart if it is said which token ends one."""
        rows = self.tokens[starts[:, None] + np.arange(self.size)]
        if end is None:
            return [Example(row) for row in rows]
        ended = rows == end
        documents = np.cumsum(ended, axis=1) - ended
        return [Example(row, document=document) for row, document in zip(rows, documents, strict=True)]

    @property
    def an_epoch(self) -> int:
        """Windows in an epoch: one fewer than fit, so that they can begin anywhere in a stride."""
        return max(1, len(self) - 1)

    def _shuffle(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Where the windows of an epoch start: every one once, or in turns until a batch is full."""
        offset = rng.integers(len(self.tokens) - self.overlap - self.an_epoch * self.stride + 1)
        turns = -(-rows // self.an_epoch) if rows > self.an_epoch else 1
        order = np.concatenate([rng.permutation(self.an_epoch) for _ in range(turns)])
        return offset + order * self.stride
