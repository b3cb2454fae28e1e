"""What a run prints: plain lines, and on a terminal one live line below them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import textwrap
from typing import Any, TextIO

NOWHERE: Any = io.TextIOBase()
"""Takes nothing: every write is refused."""

CODES = {"bold": "1", "dim": "2", "good": "32", "bad": "31", "accent": "36"}


class Console:
    """Writes to whatever ``sys.stdout`` is at the moment; restrained on a terminal, plain anywhere else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._live = ""

    @property
    def stream(self) -> TextIO:
        """Where it writes; what takes nothing, where a program has no standard output."""
        return self._stream or sys.stdout or NOWHERE

    @property
    def terminal(self) -> bool:
        """Whether someone watches, on something that can overwrite a line."""
        try:
            watched = self.stream.isatty()
        except ValueError:  # it is closed
            watched = False
        return watched and os.environ.get("TERM") != "dumb"

    @property
    def width(self) -> int:
        """Columns to write in: the terminal's, or 100 where there is none."""
        return max(20, shutil.get_terminal_size((100, 24)).columns) if self.terminal else 100

    def style(self, text: str, kind: str) -> str:
        """``text`` in a style (see ``CODES``), where there is a terminal and nobody asked for no colour."""
        if not text or not self.terminal or os.environ.get("NO_COLOR"):
            return text
        return f"\x1b[{CODES[kind]}m{text}\x1b[0m"

    def print(self, text: str = "", kind: str = "") -> None:
        """A line that stays; the live line moves on below it."""
        live, self._live = self._live, ""
        if live:
            self._write("\r\x1b[K")
        self._write((self.style(text, kind) if kind else text) + "\n")
        if live:
            self.live(live)

    def live(self, text: str) -> None:
        """Put ``text`` into the live line. Nothing happens where there is no terminal."""
        if not self.terminal:
            return
        self._live = text
        self._write(f"\r{crop(text, self.width - 1)}\x1b[K")

    def settle(self) -> None:
        """Take the live line away."""
        if self._live:
            self._live = ""
            self._write("\r\x1b[K")

    def wrap(self, text: str, indent: int = 0) -> list[str]:
        """``text`` in lines that fit, the later ones indented."""
        lines = textwrap.wrap(
            text, max(20, self.width), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        return lines or [""]

    def _write(self, text: str) -> None:
        encoding = self.stream.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed stream: a run does not end for that
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
            self.stream.flush()


def printable(text: str) -> str:
    """Without what would steer a terminal: control characters (but line ends and tabs) become U+FFFD."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def crop(text: str, width: int) -> str:
    """At most ``width`` characters; three dots where something is missing."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


console = Console()
"""The one that everybody writes to, so that nothing tears the live line."""


# Numbers for people ------------------------------------------------------------------------------------------------


def count(number: float) -> str:
    """1234567 -> 1.23 M"""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes, in powers of 1024: 2048 -> 2.0 KiB"""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """3725 -> 1:02:05"""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(number: float) -> str:
    """A learning rate, short: 0.00091 -> 9.1e-04, 0.01 -> 0.01"""
    return f"{number:.3g}" if number == 0 or number >= 1e-3 else f"{number:.1e}"
