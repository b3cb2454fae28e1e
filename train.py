"""Compose, resolve, build, fit, report.

python train.py model=decoder_only attention=gqa position=rope
python train.py -m attention=mha,gqa,mqa seed=1,2,3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import blockwright

if TYPE_CHECKING:
    from registry.compose import Job, Record


def train(job: Job) -> Record:
    """One run: everything is built from ``job.spec``, everything it leaves is in ``job.folder``."""
    from training.run import run

    record = run(job)
    return job.record(record, record.exit_status, record.reason)


def compare(records: list[Record]) -> int:
    """The end of a multi-run: prints a table of its jobs; returns the exit status."""
    from registry.errors import STOPPED
    from training.report import show_jobs

    show_jobs(records)
    stopped = any(record.status == STOPPED for record in records)
    return STOPPED if stopped else int(any(record.status for record in records))


def wrong(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with ``trainer.*``, beside what is wrong with the rest of a config."""
    from training.trainer import wrong as wrong_values

    trainer = config.get("trainer")
    return wrong_values(trainer if isinstance(trainer, dict) else {})


def main() -> None:
    """The whole program, once the names of our packages are seen to be ours."""
    blockwright.start()
    from registry.program import run

    def command() -> int:
        from registry.compose import launch

        return launch(train, compare, check=wrong)

    run(command, goes_on=True, idle=" before a run began")  # one that has begun answers signals itself


if __name__ == "__main__":
    main()
