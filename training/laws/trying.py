"""What the laws of training are tried on: texts, examples, a small model, a short run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from blocks.laws import V
from blocks.laws.specs import model_spec
from registry import factory
from training.contracts import Example, Objective, Tokenizer

LENGTH = 32
"""Tokens of a row."""

LEARNED = ["def main():\n    return 1\n", "one two three, four.\n", "äöü ß é\n", "日本語\n"]
"""What a tokenizer learns from."""

UNSEEN = ["", " ", "main", "\t\r\n\x00", "a" * 100, "Zürich 9", "日本語 русский", "🙂 e\u0301 \u200d", "x\u0000y"]
"""What it may have to say afterwards."""


def trained(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, with what there is to learn learned."""
    tokenizer.train(LEARNED)
    return tokenizer


def examples(objective: Objective, rows: int = 3, seed: int = 0, documents: bool = False) -> list[Example]:
    """Examples of random text for an objective, as data of its kind gives them."""
    rng, text = np.random.default_rng(seed), objective.tokenizer.text_ids
    if objective.gives == "pairs":
        lengths = rng.integers(3, 8, (rows, 2))
        return [
            Example(rng.integers(text.start, text.stop, n), rng.integers(text.start, text.stop, m)) for n, m in lengths
        ]
    size = objective.window(min(LENGTH, objective.max_length))
    document = np.repeat([0, 1], [size // 3, size - size // 3]) if documents else None
    return [Example(rng.integers(text.start, text.stop, size), document=document) for _ in range(rows)]


def small_model() -> nn.Module:
    """A model with parameters of every kind: matrices, tables, gains, biases."""
    torch.manual_seed(0)
    parts = {
        "mixer": {"name": "attention/mha", "n_heads": 4, "bias": True},
        "position": "position/t5",
        "residual": {"name": "residual/layer_scale", "norm": "norm/layer"},
    }
    return factory(model_spec("model/decoder_only", **parts))(V)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is there as long as this process."""
    return tempfile.TemporaryDirectory()


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """For a while, data keeps its tokens in a folder of the laws' own."""
    before = os.environ.get("BLOCKWRIGHT_CACHE")
    os.environ["BLOCKWRIGHT_CACHE"] = _folder().name
    try:
        yield
    finally:
        if before is None:
            del os.environ["BLOCKWRIGHT_CACHE"]
        else:
            os.environ["BLOCKWRIGHT_CACHE"] = before


@functools.cache
def text_files() -> Path:
    """A folder of texts, a long one (``0.txt``) and some short ones, in which no two lines are alike."""
    rng, folder = np.random.default_rng(0), Path(_folder().name, "texts")
    folder.mkdir()
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 9))) for _ in range(9000)]
    lines = [" ".join(words[at : at + 8]) for at in range(0, len(words), 8)]
    cuts = (0, 900, *range(910, len(lines), 15), len(lines))
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        (folder / f"{number}.txt").write_text("\n".join(lines[start:stop]) + "\n", encoding="utf-8")
    return folder
