"""Text as characters: the vocabulary is what the training text is written in.

A character that the training text does not have is spelled: the two hexadecimal digits of each byte of its UTF-8,
with sixteen ids of their own. Nothing is lost, a model pays for every unknown character, and bits per byte stay
comparable with those of other tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from registry import register
from training.contracts import Tokenizer

N_DIGITS = 16


@register("tokenizer/char")
class Char(Tokenizer):
    """One id a character of the training text; other characters are spelled by their bytes."""

    def __init__(self) -> None:
        self._learn("")

    def train(self, texts: Iterable[str]) -> None:
        seen: set[str] = set()
        for text in texts:
            seen.update(text)
        self._learn("".join(sorted(seen)))

    def _learn(self, characters: str) -> None:
        self.characters = characters
        points = _points(characters)
        self._id = np.full(int(points.max(initial=0)) + 1, -1)  # by code point; -1: unknown
        self._id[points] = self._first + np.arange(len(points))
        # Half bytes that an id stands for: a digit is one, a character two for each byte of its UTF-8.
        widths = 2 * (1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF))
        self._halves = np.concatenate([np.ones(N_DIGITS, dtype=np.int64), widths])

    @property
    def text_ids(self) -> range:
        return range(4, self._first + len(self.characters))

    @property
    def _first(self) -> int:
        """The id of the first character; the digits stand before it."""
        return 4 + N_DIGITS

    def encode(self, text: str) -> np.ndarray:
        points = _points(text)
        known = points < len(self._id)
        ids = np.where(known, self._id[np.where(known, points, 0)], -1)
        unknown = np.flatnonzero(ids < 0)
        if not len(unknown):
            return ids
        parts: list[np.ndarray] = []
        start = 0
        for at in map(int, unknown):
            octets = np.frombuffer(text[at].encode(), dtype=np.uint8).astype(np.int64)
            digits = np.stack([octets >> 4, octets & 15], axis=1).ravel()
            parts += [ids[start:at], self.text_ids.start + digits]
            start = at + 1
        return np.concatenate([*parts, ids[start:]])

    def decode(self, ids: Iterable[int]) -> str:
        """Digits that spell no UTF-8 (a model may write some) are shown as U+FFFD."""
        text, spelled = [], ""
        for i in map(int, ids):
            if i in range(self.text_ids.start, self._first):
                spelled += f"{i - self.text_ids.start:x}"
            elif i in self.text_ids:
                text += [_spelled(spelled), self.characters[i - self._first]]
                spelled = ""
        return "".join([*text, _spelled(spelled)])

    def n_bytes(self, ids: np.ndarray) -> int:
        said = ids[(ids >= self.text_ids.start) & (ids < self.text_ids.stop)]
        return int(self._halves[said - self.text_ids.start].sum()) // 2

    def state(self) -> dict[str, Any]:
        return {"characters": self.characters}

    def load_state(self, state: dict[str, Any]) -> None:
        self._learn(state["characters"])


def _points(text: str) -> np.ndarray:
    """The code points of ``text``."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)


def _spelled(digits: str) -> str:
    """The text whose UTF-8 has these hexadecimal digits; half a byte at the end is left out."""
    return bytes.fromhex(digits[: len(digits) // 2 * 2]).decode(errors="replace")
