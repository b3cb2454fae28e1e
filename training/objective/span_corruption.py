"""What stood in the holes of a text: spans are cut out, each leaves a sentinel, and all are asked for in order.

Raffel et al. 2020, https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from registry import register
from training.batch import Batch
from training.contracts import Example, Gives, Objective, Shape, Tokenizer
from training.objective.rows import answer, windows


class Holes(NamedTuple):
    """How a window of some length is cut."""

    n_cut: int
    n_spans: int


@register("objective/span_corruption")
class SpanCorruption(Objective):
    """The spans that were cut out of a window, from what is left of it.

    Every window of one length is cut in the same number of spans of the same total length, so that a batch needs no
    padding. As in the authors' program a window begins with what is kept and ends in a span.

    Args:
        rate: Share of a window's tokens that are cut out.
        mean_span: Mean length of a span, in tokens.

    Raises:
        ValueError: The model has no decoder, the data is of pairs, or a choice is out of bounds.
    """

    packs: ClassVar[bool] = False  # a span may reach from one document into the next

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        shape: Shape,
        gives: Gives,
        /,
        *,
        rate: float = 0.15,
        mean_span: float = 3.0,
    ) -> None:
        super().__init__(tokenizer, max_length, shape, gives)
        if shape == "encoder":
            raise ValueError(
                f"{type(self).__name__} must be asked of a model with a decoder, but got an encoder. "
                "Use objective=masked_token, or model=encoder_decoder."
            )
        if gives == "pairs":
            raise ValueError(
                f"{type(self).__name__} must have running text, but got data of pairs. Use objective=next_token."
            )
        if not 0 < rate < 1:
            raise ValueError(f"rate must be between 0 and 1, but got {rate}.")
        if mean_span < 1:
            raise ValueError(f"mean_span must be at least 1 token, but got {mean_span}.")
        self.rate = rate
        self.mean_span = mean_span
        tokenizer.reserve(self._holes(self.window(max_length)).n_spans)

    def window(self, length: int) -> int:
        """A window may be longer than the rows it makes: what is cut out of one is not in the source."""
        for window in range(2 * length, 1, -1):
            if self._longest(window) <= length:
                return window
        raise ValueError(f"length must leave room for a source and its spans, but got {length} tokens.")

    def _longest(self, window: int) -> int:
        """The longest row that a window makes."""
        n_cut, n_spans = self._holes(window)
        source, target = window - n_cut + n_spans + 1, n_cut + n_spans + 1
        return max(source, target) if self.shape == "encoder_decoder" else source + target

    def _holes(self, window: int) -> Holes:
        n_cut = min(max(round(window * self.rate), 1), window - 1)
        return Holes(n_cut, min(max(round(n_cut / self.mean_span), 1), n_cut, window - n_cut))

    def batch(self, examples: list[Example], rng: np.random.Generator) -> Batch:
        tokens, _ = windows(examples)
        left, cut = self._cut(tokens, rng)
        eos = np.full((len(tokens), 1), self.tokenizer.eos)
        left = np.concatenate([left, eos], axis=1)
        return answer([Example(c, s) for c, s in zip(cut, left, strict=True)], self.tokenizer, self.shape)

    def _cut(self, tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What is left of each row, and what was cut out; a sentinel for each span in both. (B, T) -> (B, S), (B, C)"""
        rows, length = tokens.shape
        n_cut, n_spans = self._holes(length)
        kept = _parts(rng, rows, length - n_cut, n_spans)
        cut = _parts(rng, rows, n_cut, n_spans)
        runs = np.stack([kept, cut], axis=2)  # (B, n_spans, 2): kept and cut take turns, and a span ends the row
        gone = np.repeat(np.tile([False, True], rows * n_spans), runs.ravel()).reshape(rows, length)
        first = gone & ~np.pad(gone, ((0, 0), (1, 0)))[:, :-1]
        sentinel = self.tokenizer.sentinels.start + np.cumsum(first, axis=1) - 1

        source = np.where(first, sentinel, tokens)[~gone | first].reshape(rows, -1)
        # In the target a span's first token makes place for its sentinel: it is written twice, then overwritten.
        times = 1 + first[gone]
        target = np.repeat(tokens[gone], times)
        target[(np.cumsum(times) - times)[first[gone]]] = sentinel[first]
        return source, target.reshape(rows, -1)

    def prompt(self, text: str) -> Example:
        """The hole is at the end of ``text``."""
        hole, ids = self.tokenizer.sentinels.start, self.tokenizer.encode(text)
        begin = np.array([self.tokenizer.bos, hole])
        source = np.concatenate([ids, [hole, self.tokenizer.eos]])
        if self.shape == "encoder_decoder":
            return Example(begin, source)
        return Example(np.concatenate([source, begin]))


def _parts(rng: np.random.Generator, rows: int, total: int, n: int) -> np.ndarray:
    """``total`` dealt out to ``n`` parts of at least one, all ways alike, for each row. (rows, n)"""
    cuts = 1 + rng.random((rows, total - 1)).argsort(axis=1)[:, : n - 1]
    return np.diff(np.sort(cuts, axis=1), axis=1, prepend=0, append=total)
