"""A folder of token ids, mapped into memory: a text is turned into ids once.

A file is named by what it was made from, ends in a digest of its content, and appears whole or not at all. One that
does not match its digest is made again. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

DIGEST = 32  # bytes of a SHA-256
BLOCK = 1 << 24


def folder() -> Path:
    """BLOCKWRIGHT_CACHE, or ``blockwright`` in the user's cache folder."""
    if chosen := os.environ.get("BLOCKWRIGHT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blockwright"


def kept(key: str, vocab_size: int, make: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """The ids that ``make`` gives part by part, from the cache if they are there.

    Args:
        key: Says what the ids are made from; equal keys, equal ids.
        vocab_size: All ids are below it.
        make: Gives the ids; called if they have to be made.
    """
    dtype = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    path = folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{dtype.name}"
    if (ids := _load(path, dtype)) is not None:
        return ids
    try:
        _store(path, dtype, make())
    except OSError as error:
        warnings.warn(
            f"tokens are not cached: {path.parent} can not be written ({error.strerror}). "
            "Set BLOCKWRIGHT_CACHE to a folder that can.",
            stacklevel=2,
        )
        return np.concatenate([np.empty(0, dtype), *(part.astype(dtype) for part in make())])
    ids = _load(path, dtype)
    assert ids is not None, "what has just been written can be read"
    return ids


def _load(path: Path, dtype: np.dtype) -> np.ndarray | None:
    """The ids in a file, or None if it is missing or damaged."""
    try:
        n_bytes = path.stat().st_size - DIGEST
        if n_bytes < 0 or n_bytes % dtype.itemsize:
            return None
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for start in range(0, n_bytes, BLOCK):
                digest.update(file.read(min(BLOCK, n_bytes - start)))
            if file.read() != digest.digest():
                return None
    except OSError:
        return None
    if not n_bytes:
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(n_bytes // dtype.itemsize,))


def _store(path: Path, dtype: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """Write beside ``path``, then rename: nobody ever sees a half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                content = part.astype(dtype).tobytes()
                digest.update(content)
                file.write(content)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
