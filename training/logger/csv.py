"""Numbers as a table: one line each time something was measured."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from registry import register
from training.results import write_whole


@register("logger/csv")
class Csv(Logger):
    """Writes ``metrics.csv``, a column a metric; each line is on disk as soon as it is known.

    A resumed run goes on in the same file, behind the last line that it still knows of.
    """

    def __init__(self, folder: Path, /) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.columns: list[str] = []
        self.start = time.monotonic()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def resume(self, step: int) -> None:
        """Forget the lines after ``step``: they were written by steps that will be taken again."""
        rows = self.rows()
        self.columns = list(rows[0]) if rows else []
        self._rewrite([row for row in rows if int(row["step"]) <= step])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self.start, 3), **metrics}
        if new := [name for name in row if name not in self.columns]:
            rows = self.rows() if self.columns else []  # a run that starts anew starts the file anew
            self.columns += new
            self._rewrite([*rows, row])
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow({k: _short(v) for k, v in row.items()})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: run.json has them."""

    def rows(self) -> list[dict[str, str]]:
        """What the file holds."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="")
        writer.writeheader()
        writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, lambda file: file.write(text.getvalue().encode()))


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
