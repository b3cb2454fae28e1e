"""Text as the bytes of its UTF-8: nothing to learn, nothing it can not say."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from registry import register
from training.contracts import Tokenizer


@register("tokenizer/byte")
class Byte(Tokenizer):
    """One id a byte of UTF-8."""

    @property
    def text_ids(self) -> range:
        return range(4, 260)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) + self.text_ids.start

    def decode(self, ids: Iterable[int]) -> str:
        """A sequence of bytes that is no UTF-8 (a model may write one) is shown as U+FFFD."""
        text = self.text_ids
        return bytes(int(i) - text.start for i in ids if int(i) in text).decode(errors="replace")

    def n_bytes(self, ids: np.ndarray) -> int:
        return int(np.count_nonzero((ids >= self.text_ids.start) & (ids < self.text_ids.stop)))
