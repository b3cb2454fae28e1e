"""The Python standard library, as it stands on the machine this runs on: real text that everybody has."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path

from registry import register
from registry.errors import DataError
from training.contracts import Objective, Tokenizer
from training.data.documents import Document
from training.data.running_text import Packing, RunningText
from training.data.trees import Rule

LEFT_OUT = {
    *("site-packages", "dist-packages", "__pycache__"),  # not of the library
    *("test", "tests", "idle_test", "lib2to3"),  # broken on purpose, here and there
    *("encodings", "pydoc_data"),  # tables, and a manual in one string
}


@register("data/python_source")
class PythonSource(RunningText):
    """The source of Python's standard library, in windows; some files are kept for validation.

    Which files, and for what, is decided by a hash of their names: two machines with one Python have the same data.

    Args:
        max_bytes: How much of it is read at most. None: all.
        val_fraction: Share of the files that is kept for validation.
        batch_size: Windows a batch.
        length: Tokens a row. None: the model's max_length.
        val_batches: Batches a validation, from all over the text. None: all of it.
        packing: ``stream``: a window is read as one text, whatever files it touches. ``documents``: no token sees
            another file.
        trees: ``nesting``: each token hangs on another by brackets and indentation, for positions that follow a tree.
            The trees are those of the rows that the model is shown: of what is hidden from it they say nothing.

    Raises:
        ValueError: A choice is out of bounds, or a row is longer than the model takes.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        objective: Objective,
        max_length: int,
        seed: int,
        /,
        *,
        max_bytes: int | None = 4_000_000,
        val_fraction: float = 0.1,
        batch_size: int = 16,
        length: int | None = None,
        val_batches: int | None = 16,
        packing: Packing = "stream",
        trees: Rule = "none",
    ) -> None:
        super().__init__(
            tokenizer,
            objective,
            max_length,
            seed,
            batch_size=batch_size,
            length=length,
            val_fraction=val_fraction,
            val_batches=val_batches,
            packing=packing,
            trees=trees,
        )
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, or null for all, but got {max_bytes}.")
        self.max_bytes = max_bytes
        self.root = Path(sysconfig.get_path("stdlib"))

    def documents(self) -> tuple[list[Document], list[Document]]:
        parts: tuple[list[Document], list[Document]] = [], []
        left = sys.maxsize if self.max_bytes is None else self.max_bytes
        for digest, path in sorted((_digest(path.relative_to(self.root)), path) for path in _files(self.root)):
            document = Document.whole(path)
            if 0 < document.size <= left and _readable(document):
                left -= document.size
                share = int.from_bytes(digest[-8:], "big") / 2**64
                parts[share < self.val_fraction].append(document)
        if not all(parts):
            raise DataError(
                f"the standard library must have source files to train and to validate on, but got {len(parts[0])} and "
                f"{len(parts[1])} from {self.root}. Use a larger data.max_bytes, or data=text with a path of your own."
            )
        return parts

    @property
    def source(self) -> str:
        return f"the standard library of Python {sys.version_info.major}.{sys.version_info.minor}"


def _files(root: Path) -> list[Path]:
    found = []
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(set(inner) - LEFT_OUT)
        found += [path for file in files if file.endswith(".py") and (path := Path(folder, file)).is_file()]
    return found


def _digest(name: Path) -> bytes:
    return hashlib.sha256(name.as_posix().encode()).digest()


def _readable(document: Document) -> bool:
    """Whether it is UTF-8; a few files of the library are not."""
    try:
        return all(True for _ in document.pieces())
    except DataError:
        return False
