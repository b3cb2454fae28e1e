"""Numbers go nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from registry import register


@register("logger/none")
class NoLogger(Logger):
    """Keeps no metrics beside those in ``run.json``."""

    def __init__(self, folder: Path, /) -> None:
        super().__init__()

    @property
    def name(self) -> str:
        return "none"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Nothing."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""
