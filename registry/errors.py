"""One error family. The message is for a person; the status code says the kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class BlockwrightError(ValueError):
    """Something a person can mend. ``status`` is what the program exits with."""

    status = 1


class ConfigError(BlockwrightError):
    """A config names something that does not exist, or asks for what can not work."""

    status = 2


class Refusals:
    """Builds parts, and gathers what refuses to be built: a person hears of all of it at once."""

    def __init__(self) -> None:
        self._heard: dict[str, bool] = {}

    def build(self, make: Callable[..., Any], *facts: Any) -> Any:
        """``make(*facts)``, or None and a line for ``judge``."""
        try:
            return make(*facts)
        except ValueError as refusal:
            self._heard |= dict.fromkeys(str(refusal).splitlines(), isinstance(refusal, ConfigError))
            return None

    def judge(self) -> None:
        """Raises all that was refused, a line each, the same line once."""
        if self._heard:
            kind = ConfigError if any(self._heard.values()) else ValueError
            raise kind("\n".join(self._heard))


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
