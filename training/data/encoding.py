"""Bytes that must be UTF-8: what they are where they are not, and what may be done."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

import numpy as np

SAMPLE = 1 << 12
"""Bytes that are looked at."""

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How a text in another Unicode encoding begins."""


def guess(head: bytes, around: bytes) -> str | None:
    """The encoding that bytes may be in; None: they are no text.

    Args:
        head: How the file or stream begins.
        around: Where it is no UTF-8.
    """
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if wide := _wide(head):
        return wide
    if 0 in head or 0 in around:
        return None
    windows = any(0x80 <= byte <= 0x9F for byte in around)  # control characters in Latin-1
    return "cp1252" if windows else "latin1"


def is_wide(head: bytes) -> bool:
    """Whether bytes are UTF-16 without a mark: of Latin letters every other byte is 0, which is UTF-8 as well."""
    return 0 in head and _wide(head) is not None


def _wide(head: bytes) -> str | None:
    zero = np.frombuffer(head[: len(head) // 2 * 2], dtype=np.uint8).reshape(-1, 2) == 0
    first, second = zero.mean(axis=0) if len(zero) else (0.0, 0.0)
    if max(first, second) < 0.5 or min(first, second) > 0.05:
        return None
    return "utf-16le" if second > first else "utf-16be"


def complaint(what: str, where: str, at: int, head: bytes, around: bytes, file: Path | None = None) -> str:
    """The sentence for bytes that are no UTF-8, with an advice that fits them.

    Args:
        what: What must be UTF-8.
        where: Where the bytes stand.
        at: Which of them is wrong.
        head: How they begin.
        around: Those from the wrong one on.
        file: The file that they stand in.
    """
    encoding = guess(head, around)
    if encoding is None:
        advice = "Give lines of text." if file is None else "Leave it out, and name the files of text alone."
        return f"{what} must be UTF-8, but {where} is no text: byte {at} is 0x{around[0]:02x}. {advice}"
    command = f"iconv -f {encoding} -t utf-8" + (f" {shlex.quote(str(file))}" if file else "")
    found = f"{where} is in {encoding.upper()}"
    if not encoding.startswith("utf"):
        found = f"byte {at} of {where} is 0x{around[0]:02x}"
    return f"{what} must be UTF-8, but {found}. Convert it, for instance with: {command}"
