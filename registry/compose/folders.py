"""The folders that runs are written to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from registry.errors import MachineError


def reserve(runs: Path, name: str) -> Path:
    """Make a new folder for a run, named after ``name`` or the time. No other run has it.

    Raises:
        MachineError: Nothing can be written here.
    """
    name = name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    count = 1
    while True:
        folder = runs.absolute() / (name if count == 1 else f"{name}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            count += 1
        except OSError as error:
            raise MachineError(
                f"a run must be able to write its folder, but {folder} can not be made: {error}."
            ) from error


def sweep_up(folders: Iterable[Path]) -> None:
    """Remove folders that hold nothing but Hydra's note of a sweep."""
    for folder in folders:
        if not folder.is_dir() or any(f.name != "multirun.yaml" for f in folder.iterdir()):
            continue
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
