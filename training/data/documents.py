"""Documents: UTF-8 files, or parts of them, read a few megabytes at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from registry.errors import DataError
from training.data.encoding import SAMPLE, complaint, is_wide

PIECE = 1 << 22
"""Bytes read at a time; a piece ends where a line does."""


class Document(NamedTuple):
    """Bytes ``start`` to ``stop`` of a file."""

    path: Path
    start: int
    stop: int

    @classmethod
    def whole(cls, path: Path) -> Document:
        return cls(path, 0, path.stat().st_size)

    @property
    def size(self) -> int:
        return self.stop - self.start

    def read(self, limit: int | None = None) -> bytes:
        """All bytes, or the first ``limit``."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size if limit is None else min(limit, self.size))

    def pieces(self) -> Iterator[str]:
        """The text, some whole lines at a time.

        Raises:
            DataError: It is not UTF-8, or can not be read.
        """
        at = self.start
        try:
            with open(self.path, "rb") as file:
                file.seek(at)
                while at < self.stop and (lines := b"".join(file.readlines(min(PIECE, self.stop - at)))):
                    lines = lines[: self.stop - at]
                    if 0 in lines and is_wide(lines[:SAMPLE]):
                        raise DataError(self._complaint(at + lines.index(0), lines[lines.index(0) :]))
                    yield lines.decode()
                    at += len(lines)
        except UnicodeDecodeError as error:
            raise DataError(self._complaint(at + error.start, error.object[error.start :])) from error
        except OSError as error:
            raise DataError(f"text must be readable, but got {self.path}: {error.strerror}.") from error

    def _complaint(self, at: int, rest: bytes) -> str:
        """The sentence for a byte that is no UTF-8, of the bytes from it on."""
        head = Document.whole(self.path).read(SAMPLE)
        return complaint("text", str(self.path), at, head, rest[:SAMPLE], self.path)

    def cut(self, at: int) -> tuple[Document, Document]:
        """The first ``at`` bytes or a few more, up to the end of a character, and the rest."""
        with open(self.path, "rb") as file:
            file.seek(self.start + at)
            within = next((i for i, byte in enumerate(file.read(4)) if byte & 0xC0 != 0x80), 0)
        middle = min(self.start + at + within, self.stop)
        return self._replace(stop=middle), self._replace(start=middle)


def split(documents: list[Document], val_fraction: float) -> tuple[list[Document], list[Document]]:
    """All but the last ``val_fraction`` of the bytes, and these; one document may be cut in two."""
    left = int(sum(d.size for d in documents) * (1 - val_fraction))
    for i, document in enumerate(documents):
        if left < document.size:
            train, val = document.cut(left)
            halves = [[*documents[:i], train], [val, *documents[i + 1 :]]]
            return ([d for d in halves[0] if d.size], [d for d in halves[1] if d.size])
        left -= document.size
    return documents, []


def fingerprint(documents: Iterable[Document]) -> str:
    """A digest of what the documents say, in order; all of them are read, and checked to be UTF-8."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.size.to_bytes(8, "little"))
        for piece in document.pieces():
            digest.update(piece.encode())
    return digest.hexdigest()
