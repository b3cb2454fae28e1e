"""How a value is written on the command line, so that it is read as it was meant; in a shell as well."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any


def spelt(value: Any) -> str:
    """A value as a person would type it behind the ``=``: text in quotes where it needs them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{spelt(str(k))}:{spelt(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelt, value)) + "]"
    if isinstance(value, str):
        return value if _bare(value) else quoted(value)
    return str(value)


def _bare(text: str) -> bool:
    """The text means itself without quotes: it is no number, no truth value, and holds no special sign."""
    if re.fullmatch(r"\$\{[\w.:/]+\}", text):
        return True  # an interpolation, as in ${oc.env:HOME}
    special = re.fullmatch(r"(?i:null|true|false|nan|inf|[-+]?inf|[-+]?nan)", text)
    return bool(re.fullmatch(r"[A-Za-z_./][\w./*-]*", text, re.ASCII)) and not special


def quoted(text: str) -> str:
    """Text in single quotes, so that the parser of values gives it back unchanged."""
    # Backslashes are doubled only where they stand before a quote, the closing one included.
    inside = re.sub(r"(\\*)'", lambda found: f"{found[1] * 2}\\'", text)
    inside = re.sub(r"(\\+)\Z", lambda found: found[1] * 2, inside)
    return f"'{inside}'"


def literal(text: str) -> str:
    """Text of which nothing is an interpolation any more: ``${`` means itself."""
    return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)


def advice(path: str, text: str) -> str:
    """A word that chooses some text, as it can be copied into a shell; in quotes where it needs them."""
    text = literal(text)
    in_quotes = quoted(text) if set(text) & set('"\\') else f'"{text}"'  # signs that double quotes change
    return shlex.quote(f"{path}={text if _bare(text) else in_quotes}")
