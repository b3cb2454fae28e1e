"""From examples to the rows of a batch: what objectives share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from blocks.contracts import IGNORE, Layout
from training.batch import Batch
from training.contracts import Example, Shape, Tokenizer


def windows(examples: list[Example]) -> tuple[np.ndarray, np.ndarray | None]:
    """Windows of one length, one a row, and the documents of their tokens, if there are several. (B, T)"""
    tokens = np.stack([e.tokens for e in examples]).astype(np.int64)
    if examples[0].document is None:
        return tokens, None
    return tokens, np.stack([e.document for e in examples if e.document is not None])


def trees(examples: list[Example]) -> np.ndarray | None:
    """For each token of windows the index of its governor, if trees are given with the data. (B, T)"""
    if examples[0].heads is None:
        return None
    return np.stack([e.heads for e in examples if e.heads is not None])


def whole(
    tokens: np.ndarray,
    targets: np.ndarray,
    document: np.ndarray | None = None,
    heads: np.ndarray | None = None,
) -> Batch:
    """A batch of rows without padding; ``heads`` are indices into the rows. (B, T) each"""
    layout = Layout.full(*tokens.shape) if document is None else Layout.packed(_tensor(document))
    if heads is not None:
        layout = layout._replace(heads=layout.position.gather(1, _tensor(heads)))
    return Batch(_tensor(tokens), _tensor(targets), layout)


def answer(examples: list[Example], tokenizer: Tokenizer, shape: Shape) -> Batch:
    """A batch that asks for each target, and its end, after its source.

    An encoder-decoder reads the source in its encoder. A decoder reads it in the row: source, bos, target.
    """
    bos, eos = np.array([tokenizer.bos]), np.array([tokenizer.eos])
    sources = [_source(e) for e in examples]
    answers = [np.concatenate([e.tokens, eos]) for e in examples]
    if shape == "encoder_decoder":
        tokens, layout = padded([np.concatenate([bos, e.tokens]) for e in examples], tokenizer.pad)
        targets, _ = padded(answers, IGNORE)
        source, source_layout = padded(sources, tokenizer.pad)
        return Batch(tokens, targets, layout, source, source_layout)
    tokens, layout = padded([join(e, tokenizer) for e in examples], tokenizer.pad)
    unasked = [np.full(len(source), IGNORE) for source in sources]
    targets, _ = padded([np.concatenate(parts) for parts in zip(unasked, answers, strict=True)], IGNORE)
    return Batch(tokens, targets, layout)


def join(example: Example, tokenizer: Tokenizer) -> np.ndarray:
    """Both halves of a pair in a row: source, bos, target."""
    return np.concatenate([_source(example), [tokenizer.bos], example.tokens])


def padded(rows: Sequence[np.ndarray], filler: int) -> tuple[Tensor, Layout]:
    """Rows of any lengths side by side, filled up at their ends; (B, T), and where the tokens sit."""
    lengths = np.array([len(row) for row in rows])
    length = int(lengths.max())
    table = np.full((len(rows), length), filler, dtype=np.int64)
    table[np.arange(length) < lengths[:, None]] = np.concatenate(rows)
    if (lengths == length).all():
        return _tensor(table), Layout.full(len(rows), length)
    return _tensor(table), Layout.padded(_tensor(lengths), length)


def _source(example: Example) -> np.ndarray:
    assert example.source is not None, "a pair has a source"
    return example.source


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
