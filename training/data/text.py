"""Text of the user's own: files, folders or globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from registry import register
from registry.errors import DataError
from training.contracts import Objective, Tokenizer
from training.data.documents import Document, split
from training.data.running_text import Packing, RunningText
from training.data.trees import Rule


@register("data/text")
class Text(RunningText):
    """Text files, in windows; the last part of them, or files of their own, for validation.

    Args:
        path: A file, a folder (all files in it, hidden ones left out) or a glob, or a list of them. UTF-8.
        val_path: The same for validation. None: the last ``val_fraction`` of the text.
        val_fraction: Share of the text that is kept for validation, in bytes.
        batch_size: Windows a batch.
        length: Tokens a row. None: the model's max_length.
        val_batches: Batches a validation, from all over the text. None: all of it.
        packing: ``stream``: a window is read as one text, whatever documents it touches. ``documents``: no token sees
            another document.
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
        path: str | list[str],
        val_path: str | list[str] | None = None,
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
        self.path = path
        self.val_path = val_path

    def documents(self) -> tuple[list[Document], list[Document]]:
        found = _find(self.path, "data.path")
        if self.val_path is not None:
            return found, _find(self.val_path, "data.val_path")
        return split(found, self.val_fraction)

    @property
    def source(self) -> str:
        return ", ".join(_listed(self.path))


def _listed(path: str | list[str]) -> list[str]:
    return [str(path)] if isinstance(path, str | os.PathLike) else [str(p) for p in path]


def _find(path: str | list[str], name: str) -> list[Document]:
    """The files that ``path`` names, each once, in the order they are named and by name within.

    Raises:
        DataError: There are none, or there is nothing in them.
    """
    files: dict[Path, None] = {}
    for pattern in _listed(path):
        matches = _matches(Path(pattern).expanduser(), name) if pattern else []
        if not matches:
            raise DataError(
                f"{name} must name files that exist, but there are none at {pattern!r}, looked up in {Path.cwd()}."
            )
        files.update(dict.fromkeys(matches))
    documents = [d for d in map(Document.whole, files) if d.size]
    if not documents:
        empty = ", ".join(map(str, files)) or "an empty list"
        raise DataError(f"{name} must name files with text in them, but got {empty}.")
    return documents


def _matches(path: Path, name: str) -> list[Path]:
    """The files that ``path`` names: itself, those in it as a folder, or those that fit it as a pattern.

    Raises:
        DataError: A folder or a file can not be looked at.
    """
    try:
        if path.is_dir():
            return sorted(_inside(path))
        if path.is_file():
            return [path]
        return sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    except OSError as error:
        raise DataError(f"{name} must be readable, but {error.filename} is not ({error.strerror}).") from error


def _inside(folder: Path) -> Iterator[Path]:
    """The files in a folder and its folders, without hidden ones."""

    def refuse(error: OSError) -> NoReturn:
        raise error  # os.walk, like Path.rglob, passes over what it can not read

    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (p for name in files if not name.startswith(".") and (p := Path(where, name)).is_file())
