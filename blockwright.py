"""The command ``blockwright``: checks whose packages the names of ours stand for, then is ``python train.py``.

The names of our packages are plain words. Where another project has one of them too, Python imports whichever comes
first on its path, and pip writes both into one folder without a word. This module has a name of its own and imports
none of them before the check.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
NAMES = "blocks", "conf", "registry", "train", "training"
ENVIRONMENT = 5
"""Exit status: something that this machine does not have (``registry.errors.MachineError``)."""


STOPPED = 75
"""Exit status: stopped by a signal (``registry.errors.STOPPED``)."""


def main() -> None:
    """The command ``blockwright``, which is ``python train.py``."""
    start()
    from train import main as train

    train()


def start() -> None:
    """The first thing that a command does, before it imports what takes a while: answer signals, require our packages.

    ``registry.program.run`` takes the signals over. Where a package is another project's: status 5.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if found := taken():
        print(*(f"error: {line}" for line in found), sep="\n", file=sys.stderr)
        raise SystemExit(ENVIRONMENT)


def _stopped(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(STOPPED)  # what is being imported may catch an exception and go on


def taken() -> list[str]:
    """Checks that the names of our packages stand for ours; a sentence for each that does not."""
    shadowed = [sentence for name in NAMES if (sentence := _shadowed(name))]
    return shadowed or list(_mixed())


def missing_below_ours(error: ModuleNotFoundError) -> str | None:
    """What is wrong where code of others imports a module that a package of ours does not have."""
    top, _, below = (error.name or "").partition(".")
    if top not in NAMES or not below:
        return None
    return (
        f"{error.name!r} must be a module of Blockwright's package {top!r} ({_place(top).parent}), but there is none. "
        f"A package {top!r} of your own can not be imported beside ours: give it another name."
    )


def _shadowed(name: str) -> str | None:
    """A name that is imported from elsewhere, or from nowhere."""
    found = _imported_from(name)
    if found == _place(name):
        return None
    if found is None:
        return (
            f"{name}: {_place(name)} must be there, but it is gone. Where another package of this name was removed, "
            "it went too: install blockwright again, in an environment of its own."
        )
    owner, folder = _owner(found), found.parent if found.name != "__init__.py" else found.parent.parent
    if owner:
        what = f"Install blockwright and {owner} in environments of their own."
    elif folder == Path.cwd():
        what = "Run from another folder, or rename that one."
    elif str(folder) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        what = "Take its folder off PYTHONPATH, or rename it."
    else:
        what = "Take its folder off Python's path, or rename it."
    return (
        f"{name}: the package must be Blockwright's ({_place(name)}), but {found}{f' of {owner}' if owner else ''} "
        f"comes first on the path. {what}"
    )


def _mixed() -> Iterator[str]:
    """Names under which another installed package has put files among ours, or over them."""
    try:
        ours = importlib.metadata.distribution("blockwright")
    except importlib.metadata.PackageNotFoundError:
        return
    record = ours.read_text("RECORD")  # ``ours.files`` leaves out what is gone, from Python 3.13 on
    if record is None:
        return  # the metadata of a source tree lists what was there when it was built
    recorded = {file: size for file, _, size in csv.reader(record.splitlines())}
    if Path(str(ours.locate_file("blockwright.py"))).resolve() != Path(__file__).resolve() or not recorded:
        return  # a checkout: no other package is installed into it
    here = [p.relative_to(ROOT).as_posix() for name in NAMES for p in _sources(ROOT / name)]
    lost = {f for f in recorded if f.endswith(".py") and f.partition("/")[0].removesuffix(".py") in NAMES} - {*here}
    foreign = {f for f in here if f not in recorded or recorded[f] != str((ROOT / f).stat().st_size)}
    for file in sorted(foreign):
        if owner := _owner(ROOT / file):
            yield (
                f"{file}: the file must be Blockwright's or not be there, but {owner} was installed into the same "
                f"folder ({ROOT}). Install blockwright and {owner} in environments of their own."
            )
            return
    if lost:
        yield (
            f"{min(lost)}: {ROOT / min(lost)} must be there, but it is gone. Where another package with this file was "
            "removed, it went too: install blockwright again, in an environment of its own."
        )


def _sources(place: Path) -> list[Path]:
    return [*place.rglob("*.py")] if place.is_dir() else [*filter(Path.exists, [place.with_suffix(".py")])]


def _place(name: str) -> Path:
    """The file that our package or module ``name`` is imported from."""
    return ROOT / "train.py" if name == "train" else ROOT / name / "__init__.py"


def _imported_from(name: str) -> Path | None:
    """The file that ``name`` is or would be imported from, without importing it. None: there is none."""
    if name in sys.modules:
        file = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        file = spec.origin if spec else None
    return Path(file).resolve() if file else None


def _owner(file: Path) -> str | None:
    """The installed package, other than ours, that lists ``file`` as its own."""
    for package in importlib.metadata.distributions():
        folder = Path(str(package.locate_file(""))).resolve()
        if package.name != "blockwright" and file.is_relative_to(folder):
            listed = file.relative_to(folder).as_posix()
            if any(str(f) == listed for f in package.files or ()):
                return f"{package.name} {package.version}"
    return None


if __name__ == "__main__":
    main()
