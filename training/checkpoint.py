"""Checkpoint files: written whole or not at all, checked when read, compared before they are used."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor, nn

from registry.errors import CheckpointError
from registry.quoting import advice
from training.results import write_whole


class SafeCheckpointIO(CheckpointIO):
    """Saves beside the target and moves into place; keeps a SHA-256 and checks it when it loads.

    The file ``last.ckpt.sha256`` is of the form that ``sha256sum --check`` reads.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        check_readable(checkpoint)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        hashing = hashlib.sha256()

        def write(file: IO[bytes]) -> None:
            torch.save(checkpoint, cast(IO[bytes], Hashed(file, hashing)))

        write_whole(path, write, lambda temporary, path: publish(temporary, path, hashing.hexdigest()))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return load(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        for file in (Path(path), sidecar(Path(path))):
            file.unlink(missing_ok=True)


class Hashed:
    """A file to write to that knows the digest of what it was given, whatever the disk makes of it."""

    def __init__(self, file: IO[bytes], hashing: Any) -> None:
        self.file = file
        self.hashing = hashing

    def write(self, data: bytes) -> int:
        self.hashing.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def check_readable(checkpoint: Mapping[str, Any]) -> None:
    """Refuse to save what ``load`` would refuse to read.

    Raises:
        CheckpointError: Something in it is neither a tensor nor a plain container; says where it stands.
    """
    if _opens(_without_tensors(checkpoint)):
        return
    where, found = next(_unreadable(checkpoint, ()), ((), checkpoint))
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    raise CheckpointError(
        f"checkpoint: what is saved must be tensors and plain containers, but {' / '.join(where) or 'it'} holds "
        f"{found!r}, a {kind}. Whatever keeps it (a callback's or a tokenizer's state, an optimizer's group) must keep "
        "numbers, text, lists or mappings instead."
    )


def _unreadable(value: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The innermost values that can not be read again, each with its keys from the outside in."""
    if _opens(_without_tensors(value)):
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    found = [one for key, v in inner for one in _unreadable(v, (*where, str(key)))]
    yield from found or [(where, value)]


def _without_tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        return None
    if type(value) in (dict, OrderedDict):
        return {k: _without_tensors(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_tensors(v) for v in value)
    return value


def _opens(value: Any) -> bool:
    """Whether a value can be read after it was saved."""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # whatever pickle, or a class that it calls, raises
        return False
    return True


def load(path: str | Path) -> dict[str, Any]:
    """A checkpoint on the CPU. Only tensors and plain containers are ever unpickled.

    Raises:
        CheckpointError: There is no such file, its content is not what was written, or it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        raise CheckpointError(
            f"ckpt_path: there must be a checkpoint at {path}, but there is none"
            f"{'; beside it are: ' + ', '.join(there) if there else ''}."
        )
    known = _digests(path)
    if known and digest(path) not in known:
        raise CheckpointError(
            f"ckpt_path: {path} must be what was written, but its SHA-256 is not the one in {sidecar(path).name}: "
            f"the file is damaged. {_another(path)}"
        )
    try:
        checkpoint = _read(path)
    except UNREADABLE as error:
        raise CheckpointError(
            f"ckpt_path: {path} must be a checkpoint of tensors and plain containers, but it can not be read "
            f"({_first_line(error)}). {_another(path)}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"ckpt_path: {path} must be a checkpoint of a run, but it holds no weights of a task.")
    return cast(dict[str, Any], checkpoint)


UNREADABLE = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError)
"""What reading a file raises that is damaged, or holds more than tensors and plain containers."""


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def check_fits(checkpoint: dict[str, Any], model: nn.Module, spec: dict[str, Any], path: str | Path) -> None:
    """Compare a checkpoint with the model that would take it up.

    Raises:
        CheckpointError: It holds another architecture; says which parts differ.
    """
    saved = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    here = model.state_dict()
    wrong = [f"{name} is not in the checkpoint" for name in here if name not in saved]
    wrong += [f"{name} is only in the checkpoint" for name in saved if name not in here]
    wrong += [
        f"{name} is {_shape(saved[name])} in the checkpoint and {_shape(here[name])} here"
        for name in here
        if name in saved and saved[name].shape != here[name].shape
    ]
    chosen = list(differences(checkpoint.get("blockwright", {}).get("model") or spec, spec))
    if not wrong and not chosen:
        return
    lines = chosen or wrong  # choices say it better than tensors
    raise CheckpointError(
        f"ckpt_path: the model must be the one that {path} was saved from, but "
        + "\n  ".join([f"{len(lines)} thing{'s' * (len(lines) != 1)} differ{'s' * (len(lines) == 1)}:", *lines[:8]])
        + (f"\n  and {len(lines) - 8} more." if len(lines) > 8 else "")
    )


FREE = ("dropout", "backend")
"""Choices that another session may make otherwise: they change how a model is trained, not what it is."""


def differences(saved: Any, here: Any, path: str = "model") -> Iterator[str]:
    """Where two specs differ, a line each. Choices that one of them does not know are left to the weights."""
    if isinstance(saved, dict) and isinstance(here, dict):
        if saved.get("name") != here.get("name"):
            yield f"{path} is {saved.get('name')} in the checkpoint and {here.get('name')} here"
            return
        for key in saved:
            if key in here and key not in FREE:
                yield from differences(saved[key], here[key], f"{path}.{key}")
    elif isinstance(saved, list | tuple) and isinstance(here, list | tuple):
        if len(saved) != len(here):
            yield f"{path} has {len(saved)} parts in the checkpoint and {len(here)} here"
            return
        for i, (a, b) in enumerate(zip(saved, here, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif saved != here:
        yield f"{path} is {_said(saved)} in the checkpoint and {_said(here)} here"


def publish(temporary: Path, path: Path, new: str) -> None:
    """Move a finished file, whose digest is ``new``, to where a checkpoint belongs.

    While the old one is replaced the digests of both stand beside it, so that a kill at any moment leaves a pair that
    fits.
    """
    _write_digests(path, [new, *_digests(path)])
    os.replace(temporary, path)
    _write_digests(path, [new])


def link(source: Path, target: Path) -> None:
    """Give a checkpoint a second name, without writing it again where the disk can do that.

    Its digest goes with it: what has been damaged since it was written stays known to be damaged.
    """
    known = _digests(source)
    new = known[0] if len(known) == 1 else digest(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # no hard links on this file system
        shutil.copyfile(source, temporary)
    publish(temporary, target, new)


def sidecar(path: Path) -> Path:
    """The file with the digest of ``path``."""
    return path.with_name(f"{path.name}.sha256")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in sidecar(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError:
        return []


def _write_digests(path: Path, digests: list[str]) -> None:
    text = "".join(f"{d}  {path.name}\n" for d in dict.fromkeys(digests))
    write_whole(sidecar(path), lambda file: file.write(text.encode()))


def _another(path: Path) -> str:
    """Which checkpoint can be taken instead: the newest beside it that is what was written, and that can be read."""
    for other in sorted(path.parent.glob("*.ckpt"), key=lambda p: -p.stat().st_mtime):
        if other != path and digest(other) in _digests(other):
            with contextlib.suppress(*UNREADABLE):
                _read(other)
                return f"{other.name} beside it is whole: {advice('ckpt_path', str(other))}"
    return "There is no other beside it that is whole."


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _said(value: Any) -> str:
    return str(value["name"]) if isinstance(value, dict) and "name" in value else repr(value)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
