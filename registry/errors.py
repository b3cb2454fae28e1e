"""One error family. The message is for a person; the status code says the kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class BlockwrightError(ValueError):
    """Something a person can mend. ``status`` is what the program exits with.

    located: The message begins with the place in the config.
    """

    status = 1
    located = False


class ConfigError(BlockwrightError):
    """A config names something that does not exist, or asks for what can not work."""

    status = 2


class Refusals:
    """Builds parts, and gathers what refuses to be built: a person reads all of it at once."""

    def __init__(self) -> None:
        self._refusals: list[ValueError] = []

    def build(self, make: Callable[..., Any], *facts: Any) -> Any:
        """``make(*facts)``, or None and a line for ``judge``."""
        try:
            return make(*facts)
        except ValueError as refusal:
            self._refusals.append(refusal)
            return None

    def judge(self) -> None:
        """Raises all that was refused, a line each, the same line once; the first that has a status gives it."""
        if not self._refusals:
            return
        kinds = [r for r in self._refusals if isinstance(r, BlockwrightError)]
        lines = dict.fromkeys(line for r in self._refusals for line in str(r).splitlines())
        whole = (type(kinds[0]) if kinds else ValueError)("\n".join(lines))
        if isinstance(whole, BlockwrightError):
            whole.located = any(r.located for r in kinds)
        raise whole


class DataError(BlockwrightError):
    """Data is missing, empty, unreadable or does not fit the model."""

    status = 3


class CheckpointError(BlockwrightError):
    """A checkpoint or a run folder can not be used."""

    status = 4


class MachineError(BlockwrightError):
    """This machine does not have what was asked for."""

    status = 5


STOPPED = 75
"""Exit status of a run that a signal stopped and that can be resumed."""

DIVERGED = 76
"""Exit status of a run whose loss stopped being a number."""
