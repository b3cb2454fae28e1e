"""What a run leaves behind: one record, written whole or not at all, and how to read many of them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from registry.errors import DIVERGED, STOPPED, CheckpointError

RECORD = "run.json"
"""The file in a run's folder that holds its record."""


@dataclass
class Record:
    """Everything about one run, in plain containers.

    status: "running", "done", "stopped" (by a signal, resumable), "diverged", "failed" or "dry run".
    reason: why, where it is not "done".
    spec: the resolved spec; building from it again gives the same model.
    plugin_sources: SHA-256 by file of the plugins, and of what they imported from beside them.
    data: the facts that the data told, its fingerprint among them.
    model: parameters, and FLOPs and state bytes a token.
    metrics: of the best and of the last validation, speed, time.
    files: what else is in the folder, by what it is.
    """

    name: str
    status: str = "running"
    reason: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    plugin_sources: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    seed: int = 0
    git: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    started: str = ""
    ended: str = ""

    @property
    def exit_status(self) -> int:
        """What a program ends with whose run ended like this; a run that failed has raised its own."""
        return {"done": 0, "dry run": 0, "stopped": STOPPED, "diverged": DIVERGED}.get(self.status, 1)

    def save(self, folder: Path) -> None:
        """Write ``run.json`` into ``folder``."""
        write_json(folder / RECORD, asdict(self))


def now() -> str:
    """This second, as people and machines read it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_whole(
    path: Path, write: Callable[[IO[bytes]], Any], publish: Callable[[Path, Path], Any] | None = None
) -> None:
    """Have ``write`` fill a file that appears at ``path`` complete, whatever happens meanwhile.

    The temporary file is in the same folder, so that ``publish`` moves it without copying.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        (publish or os.replace)(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """JSON that any reader takes: numbers that are not finite become null; a path's bytes that are no text stay."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    encoded = text.encode(errors="backslashreplace")  # \\udcff is how JSON writes half a character
    write_whole(path, lambda file: file.write(encoded))


def read_record(folder: str | Path) -> Record:
    """The record of the run in ``folder``.

    Raises:
        CheckpointError: There is none, or it can not be read.
    """
    path = Path(folder) / RECORD
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} must be the folder of a run, but there is no {RECORD} in it.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} must be the record of a run, but it can not be read ({error}).") from error
    known = {f.name for f in fields(Record)}
    if not isinstance(said, dict) or "name" not in said:
        raise CheckpointError(f"{path} must be the record of a run, but it has no name of one.")
    return Record(**{k: v for k, v in said.items() if k in known})


def read_records(folders: Iterable[str | Path]) -> list[Record]:
    """The records in ``folders``, in order; a folder without one is passed over."""
    found = []
    for folder in folders:
        with contextlib.suppress(CheckpointError):
            found.append(read_record(folder))
    return found


def versions() -> dict[str, str]:
    """What was installed, of what a result may depend on."""
    found = {"python": platform.python_version()}
    for package in ("blockwright", "torch", "lightning", "hydra-core", "omegaconf", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """The commit of the code that ran and whether files differed from it; empty outside a repository."""
    folder = folder or Path(__file__).resolve().parent

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = ask("rev-parse", "HEAD")
        # An installed copy may lie inside somebody else's repository, as a .venv does, which says nothing about it.
        if not commit or not ask("ls-files", "--", "."):
            return {}
        return {"commit": commit, "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.TimeoutExpired):
        return {}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
