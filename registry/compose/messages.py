"""What is reported on stderr, and Hydra's messages rewritten in the words of this project."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from registry.values import guess


def report(error: BaseException) -> None:
    """Print on stderr what has to change, a line for each thing."""
    for line in together(str(error).splitlines()):
        print(f"error: {line}", file=sys.stderr)


def together(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in their layer, as one that names all the layers."""
    place = re.compile(r" \((\w+)\.layers\.(\d+)(?:\.[\w.]+)?\): ")
    found: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        at = place.search(line)
        key = (line[: at.start()], at[1], line[at.end() :]) if at else (line, "", "")
        found.setdefault(key, []).append(at[2] if at else "")
    joined = []
    for (what, stack, reason), layers in found.items():
        many = list(dict.fromkeys(layers))
        named = f"layer {many[0]}" if len(many) == 1 else f"layers {', '.join(many[:-1])} and {many[-1]}"
        joined.append(f"{what} (in {named} of {stack}): {reason}" if stack else what)
    return joined


def in_our_words(error: BaseException) -> str:
    """Hydra's message without its advice, which does not apply here."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error) or type(error).__name__)
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing:
        group, _, name = missing[1].rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{group or 'config'}: no option is named {name!r}{guess(name, options)}"
    if not_there := re.search(r"Could not override '([^']+)'|Key '([^']+)' (?:is )?not in '", text):
        return f"{not_there[1] or not_there[2]}: Hydra has no such value."
    if "INTERVAL_SWEEP" in text:
        return (
            "interval(...): must be values that are written out, as in optimizer.lr=1e-3,3e-4, because Hydra's own "
            "sweeper takes no intervals. A plugin may, such as hydra/sweeper=optuna."
        )
    if several := re.search(r"Multiple values for ([\w/@.]+)", text):
        return f"{several[1]}: must be chosen once, but is chosen several times."
    lines = [ln.strip() for ln in text.splitlines() if ln.strip() and "+" not in ln and "HYDRA_FULL_ERROR" not in ln]
    return " ".join(lines) or text
