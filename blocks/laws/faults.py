"""Where an exception of a block under trial comes from: a line of the block's own file, not one of torch's."""

from __future__ import annotations

import inspect
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FAULTS: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What a block under trial may raise: the end of the program is no more than a bug there."""

ROOT = Path(__file__).resolve().parents[2]

NOT_THEIRS = (
    *(Path(inspect.getfile(torch)).parent, Path(sysconfig.get_path("stdlib"))),
    *(ROOT / "blocks" / "laws", ROOT / "training" / "laws", ROOT / "registry"),
)
"""Folders of what tries a block, and of what a block is built on."""


def fault(error: BaseException, file: str = "") -> str:
    """An exception in one line: its type, where it was raised, its text.

    Args:
        error: The exception.
        file: The file of the block under trial. The innermost line in it is named; if there is none, the innermost
            outside torch, the standard library and the laws.
    """
    frames = traceback.extract_tb(error.__traceback__)
    frames += getattr(error, "real_stack", None) or []  # of the code that torch.compile reads without running it
    own = [f for f in frames if file and f.filename == file]
    theirs = [f for f in frames if not f.filename.startswith("<") and not _stands_in(f.filename, NOT_THEIRS)]
    at = (own or theirs or frames)[-1:]
    where = f" at {at[0].filename}:{at[0].lineno}" if at else ""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}{where}" + (f": {text}" if text else "")


def file_of(constructor: Callable[..., Any]) -> str:
    """The file in which a block is written; empty where it is in none."""
    try:
        return inspect.getsourcefile(constructor) or ""
    except TypeError:
        return ""


def _stands_in(file: str, folders: tuple[Path, ...]) -> bool:
    path = Path(file)
    return any(path.is_relative_to(folder) for folder in folders)
