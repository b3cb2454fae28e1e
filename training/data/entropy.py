"""How well the frequencies of single tokens predict a text: what a model must beat to have learned anything."""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 22


def counts(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each id occurs. (V,)"""
    found = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(ids), BLOCK):
        found += np.bincount(ids[start : start + BLOCK], minlength=vocab_size)
    return found


def unigram_entropy(train: np.ndarray, val: np.ndarray) -> float:
    """Nats a token of the validation text, under the training counts plus one. (V,), (V,)"""
    seen = train + 1
    surprise = np.log(seen.sum()) - np.log(seen)
    return float((val * surprise).sum() / val.sum())
