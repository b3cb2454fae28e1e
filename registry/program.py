"""One process from its first to its last line: how it was started, its signals, its output, its status."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from registry.errors import STOPPED, MachineError

TRAIN = "train"
"""The module that trains; ``blockwright`` is its command where this project is installed."""


# How it was started ---------------------------------------------------------------------------------------------------


def program() -> list[str]:
    """The words that start training: those that started this process, or else those that would do so from here."""
    spec, name = getattr(sys.modules.get("__main__"), "__spec__", None), sys.argv[0]
    if spec is None and name.endswith(".py"):
        return [python(), name]
    if spec is None and Path(name).stem == "blockwright":
        return [_command(Path(name))]
    ours = Path(__file__).resolve().parents[1] / "train.py"
    if (spec is None or spec.name != TRAIN) and Path("train.py").exists() and ours.samefile("train.py"):
        return [python(), "train.py"]
    beside = Path(sys.executable).with_name("blockwright")
    if (spec is None or spec.name != TRAIN) and beside.exists():
        return [_command(beside)]
    return [python(), "-m", TRAIN]


def python() -> str:
    """The interpreter of this process, as it is best typed here."""
    here = Path(sys.executable).absolute()
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and Path(found).absolute().parent == here.parent and Path(found).samefile(here):
            return name
    return _near(here)


def as_started(text: str) -> str:
    """``text`` with its commands, ``python train.py`` and ``python -m``, as they are started here."""
    words = {"python train.py": shlex.join(program()), "python -m": shlex.join([python(), "-m"])}
    return re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], text)


def _command(path: Path) -> str:
    """An installed command by its name, if the shell finds this one."""
    found = shutil.which(path.name)
    return path.name if found and path.exists() and Path(found).samefile(path) else _near(path.absolute())


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# How it ends ----------------------------------------------------------------------------------------------------------


class OutputLostError(BaseException):
    """Standard output can not be written. A ``BaseException``, so that ``except Exception`` does not catch it."""


class Output(io.FileIO):
    """A standard stream below its text layer; the first write that fails is kept in ``lost``, later ones are dropped.

    Args:
        descriptor: Where it goes.
        lost: Why nothing can be written, if that is known.
        goes_on: Whether the program goes on without it, instead of ending with an ``OutputLostError``.
        then: Called when it is lost.
    """

    def __init__(
        self,
        descriptor: int,
        lost: OSError | None = None,
        goes_on: bool = True,
        then: Callable[[OSError], None] = lambda lost: None,
    ) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.closed_before = lost
        self.lost: OSError | None = None
        self.goes_on = goes_on
        self.then = then

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        if self.lost is None:
            try:
                if self.closed_before is not None:
                    raise self.closed_before
                return super().write(data)
            except OSError as error:
                self.lost = error
                self.then(error)
        if not self.goes_on:
            self.goes_on = True  # what is still buffered is dropped
            raise OutputLostError
        return len(data)


def run(command: Callable[[], int], *, goes_on: bool = False, idle: str = "") -> NoReturn:
    """Run ``command`` as the whole of this process, and exit with its status.

    Ctrl-C and SIGTERM are a sentence and status 75. Output that can not be written (closed, or on a full disk) is a
    sentence, and status 5 where all else went well; a closed pipe (``| head``) is neither.

    Args:
        command: Does the work; returns the status.
        goes_on: Whether the work goes on without its output.
        idle: Added to what is printed after a signal: what was not being done.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    output = _take_streams(goes_on)
    try:
        status = command()
        sys.stdout.flush()
    except OutputLostError:
        status = 0
    except SystemExit as end:  # argparse
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt as stop:
        print(f"stopped by {stop}{idle}", file=sys.stderr)
        status = STOPPED
    except BaseException:
        output.goes_on = True  # the interpreter writes what is buffered once the traceback is printed
        raise
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # what is done is done: the interpreter takes a moment to end
    output.goes_on = True
    sys.stdout.flush()
    if output.lost is not None and output.lost.errno != errno.EPIPE:
        if not goes_on:
            _report_lost(output.lost, "Send it to where there is room.")
        status = status or MachineError.status
    raise SystemExit(status)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait until this ends. torch goes on when its import of numpy is interrupted, and fails later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    both = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, lambda number, _: waiting.append(number)) for number in both]
    try:
        yield
    finally:
        for number, handler in zip(both, before, strict=True):
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _take_streams(goes_on: bool) -> Output:
    """Put streams that can be lost in the place of this process's; the one for standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would be taken for it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)

    def then(lost: OSError) -> None:
        if goes_on and lost.errno != errno.EPIPE:
            _report_lost(lost, "The run goes on without it.")

    closed = OSError(errno.EBADF, "it is closed")
    output = Output(1, None if sys.stdout else closed, goes_on, then)
    sys.stderr = _text(Output(2, None if sys.stderr else closed), sys.stderr, line_buffering=True)
    sys.stdout = _text(output, sys.stdout, line_buffering=output.isatty())
    return output


def _text(raw: Output, before: Any, line_buffering: bool) -> io.TextIOWrapper:
    """A text stream above ``raw``, encoded as the one before it; a character that has no code there becomes ``?``."""
    errors = getattr(before, "errors", "strict")
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="replace" if errors == "strict" else errors,
        line_buffering=line_buffering,
    )


def _report_lost(lost: OSError, advice: str) -> None:
    print(f'error: standard output must be writable, but got "{lost.strerror}". {advice}', file=sys.stderr)
