"""One error family. The message is for a person; the status code says the kind."""

from __future__ import annotations


class BlockwrightError(ValueError):
    """Something a person can mend. ``status`` is what the program exits with."""

    status = 1


class ConfigError(BlockwrightError):
    """A config names something that does not exist, or asks for what can not work."""

    status = 2


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
