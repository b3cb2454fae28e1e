"""One run from its spec to its record: build, check, tell, fit, record."""

from __future__ import annotations

import logging
import random
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning as L
import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from blocks.contracts import Answer, AttentionPosition, Model
from registry import REGISTRY, factory, plugins
from registry.errors import BlockwrightError, ConfigError, DataError, MachineError
from registry.program import program
from registry.values import guess
from training import machine, report
from training.callback.checkpoint import Checkpoint
from training.checkpoint import SafeCheckpointIO, check_fits, check_readable
from training.checkpoint import load as load_checkpoint
from training.console import console
from training.contracts import Data, Objective, Optimizer, Schedule, Tokenizer, shape_of
from training.logger.csv import Csv
from training.loop import StepLoop, steps_in
from training.meter import DivergedError, Meter
from training.notes import notes
from training.results import Record, git_state, now, versions, write_whole
from training.resume import RETOLD, all_changes
from training.resume import check as check_resume
from training.signals import Signals, Stopped
from training.summary import summarise
from training.task import SequenceTask, by_name
from training.trainer import PROFILERS, fitted, limited_batches, time_of


class Job(Protocol):
    """What a run is told; see ``registry.compose``."""

    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def written(self) -> dict[str, Any]: ...
    @property
    def origins(self) -> dict[str, str]: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def overrides(self) -> list[str]: ...
    @property
    def plugins(self) -> list[str]: ...
    @property
    def folder(self) -> Path: ...


class Parts(NamedTuple):
    """What a spec comes to, before a model is allocated."""

    trainer: dict[str, Any]
    tokenizer: Tokenizer
    objective: Objective
    data: Data
    optimizer: Optimizer
    schedule: Schedule
    callbacks: list[L.Callback]
    loggers: list[Any]
    checkpoint: dict[str, Any] | None


def run(job: Job) -> Record:
    """Train what ``job.spec`` describes, and leave a record in ``job.folder``.

    Nothing is written before everything has been built and tried once.

    Raises:
        BlockwrightError: Something that a person can mend; ``DivergedError`` is one.
    """
    record = Record(
        name=job.folder.name,
        spec=job.written,
        overrides=job.overrides,
        plugins=job.plugins,
        plugin_sources=plugins.sources(job.plugins),
        command=[*program(), *job.overrides],
        seed=job.spec["seed"],
        started=now(),
    )
    machine.keep_freed_memory()
    with quiet_lightning(), Signals() as signals:
        start = time.perf_counter()
        try:
            parts = prepare(job)
            meter = Meter(*(bytes_per_token(parts.data.facts, half) for half in ("train", "val")))
            trainer = trainer_of(parts, job.folder, [meter, *parts.callbacks, signals])
            tell(job, parts, record)
            if job.spec.get("dry_run"):
                record.status = "dry run"
                return record
            record.versions, record.git = versions(), git_state()
            composed = yaml.safe_dump(job.config, sort_keys=False, allow_unicode=True)
            write_whole(job.folder / "config.yaml", lambda file: file.write(composed.encode()))
            record.save(job.folder)
            fit(job, parts, record, trainer, meter)
            record.status = "done"
        except Stopped as stop:
            record.status, record.reason = "stopped", str(stop)
        except BaseException as error:
            record.status = "diverged" if isinstance(error, DivergedError) else "failed"
            record.reason = str(error) if isinstance(error, BlockwrightError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            signals.over = True
            record.ended = now()
            record.metrics["seconds"] = round(time.perf_counter() - start, 3)
            if record.versions:
                record.save(job.folder)
                report.show_end(record, job.folder)
            elif record.status == "stopped":
                print(record.reason, file=sys.stderr)
    return record


def prepare(job: Job) -> Parts:
    """Build everything but the model, and try the model without memory; all complaints come at once.

    Raises:
        BlockwrightError: Something does not work; the first by kind if several do not.
    """
    spec = job.spec
    seed_everything(spec["seed"])
    wrong: list[BlockwrightError] = []

    @contextmanager
    def gathered() -> Iterator[None]:
        try:
            yield
        except BlockwrightError as error:
            wrong.append(error)

    with gathered():
        choices = machine.trainer_choices(spec.get("trainer") or {})
    with gathered():
        optimizer = build(job, "optimizer")
    with gathered():
        callbacks = build_all(job, "callbacks", "callback")
    with gathered():
        loggers = build_all(job, "logger", "logger", job.folder)
    with gathered():
        tokenizer = build(job, "tokenizer")
        max_length = spec["model"]["max_length"]
        gives = REGISTRY[spec["data"]["name"]].constructor.gives  # type: ignore[attr-defined]
        objective = build(job, "objective", tokenizer, max_length, shape_of(spec["model"]), gives)
        data = build(job, "data", tokenizer, objective, max_length, spec["seed"])
    with gathered():
        check_head(job)
    with gathered():
        model = blueprint(job, vocab_size=512)  # what is wrong with it is known before any data is read
    complain(wrong)
    callbacks.sort(key=lambda callback: isinstance(callback, Checkpoint))  # it saves what the others have noted
    check_trees(model, data)

    data.setup("fit")
    n_batches, n_val_batches = len(data.train_dataloader()), len(data.val_dataloader())
    if not n_batches or not n_val_batches:
        raise DataError("data: there must be a batch for training and one for validation, but there is none.")
    check_monitors(job, callbacks, data, objective, choices["accelerator"])
    choices = fitted(choices, n_batches, n_val_batches)
    steps = planned_steps(choices, n_batches)
    choices = with_validations(choices, steps)
    schedule = build(job, "schedule", steps)
    checkpoint = None
    if spec.get("ckpt_path"):
        checkpoint = load_checkpoint(spec["ckpt_path"])
        check_fits(checkpoint, blueprint(job, data.vocab_size), spec["model"], spec["ckpt_path"])
        check_resume(checkpoint, spec, tokenizer, steps)
        check_data(checkpoint, data)
    return Parts(choices, tokenizer, objective, data, optimizer, schedule, callbacks, loggers, checkpoint)


def tell(job: Job, parts: Parts, record: Record) -> None:
    """Print what was composed and what it costs, and note it in the record."""
    length = job.spec["model"]["max_length"]
    summary = summarise(blueprint(job, parts.data.vocab_size), job.spec["model"], length)
    about = {"gives": parts.data.gives, "trees": parts.data.trees, "vocab_size": parts.data.vocab_size}
    record.data = {**parts.data.facts, **about}
    record.model = {
        "parameters": summary.parameters,
        "flops_per_token": summary.flops / length,
        "state_bytes_per_token": None if summary.state_bytes is None else summary.state_bytes / length,
        "length": length,
    }
    name = parts.trainer["accelerator"]
    record.machine = {"device": machine.describe(name), "accelerator": name, "precision": parts.trainer["precision"]}
    report.show_composition(job.spec, record)
    report.show_summary(summary)
    for line in notes(job.spec["model"], job.spec["data"].get("length") or length):
        console.print(line, "bad")
    report.show_data(record.data)


def fit(job: Job, parts: Parts, record: Record, trainer: L.Trainer, meter: Meter) -> None:
    """Train, and note in the record what came of it, however it ends."""
    spec = job.spec
    seed_everything(spec["seed"])
    task = SequenceTask(
        build(job, "model", parts.data.vocab_size),
        parts.objective,
        parts.optimizer,
        parts.schedule,
        compiled=bool(spec.get("compile")),
        keep={
            "model": job.written["model"],
            "tokenizer": parts.tokenizer.state(),
            "vocab_size": parts.data.vocab_size,
            "gives": parts.data.gives,
            "fingerprint": parts.data.facts.get("fingerprint"),
            "spec": {part: spec_as_run(job, parts).get(part) for part in RETOLD},
            "plugin_sources": record.plugin_sources,
        },
    )
    check_readable({"blockwright": task.keep, "callbacks": {c.state_key: c.state_dict() for c in parts.callbacks}})
    if parts.checkpoint is not None:
        for logger in parts.loggers:
            if isinstance(logger, Csv):
                logger.resume(parts.checkpoint["global_step"])
        show_resumed(parts.checkpoint, spec_as_run(job, parts))
        before = parts.checkpoint.get("blockwright", {}).get("plugin_sources", {})
        for line in plugins.changed(before, record.plugin_sources):
            console.print(line, "bad")
    try:
        trainer.fit(task, datamodule=parts.data, ckpt_path=spec.get("ckpt_path"), weights_only=True)
    finally:
        record.metrics |= {
            "steps": trainer.global_step,
            "best": meter.best,
            "last": meter.history[-1] if meter.history else {},
            "train_loss": meter.latest.get("train/loss"),
            "validations": meter.history,
            "tokens": meter.tokens,
            "tokens_per_second": meter.tokens_per_second,
            "train_seconds": meter.seconds,
        }
        record.files = files(job.folder, parts)


def build(job: Job, slot: str, *facts: Any) -> Any:
    """What stands in a slot of the run's spec, told ``facts``; its refusal says where it stands."""
    return factory(job.spec[slot], (slot,), slot, job.origins)(*facts)


def build_all(job: Job, slot: str, family: str, *facts: Any) -> list[Any]:
    """What stands in a slot that holds any number of blocks."""
    specs = enumerate(job.spec.get(slot) or [])
    return [factory(spec, (family,), f"{slot}.{i}", job.origins)(*facts) for i, spec in specs]


def blueprint(job: Job, vocab_size: int) -> Model:
    """The model without its numbers: every refusal, no memory."""
    with torch.device("meta"):
        return build(job, "model", vocab_size)


def trainer_of(parts: Parts, folder: Path, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's Trainer, with everything it would print or write by itself turned off.

    Raises:
        ConfigError: It refuses a combination of values of ``trainer.*``.
        MachineError: A package that a value needs is not there.
    """
    choices = dict(parts.trainer)
    interval = choices["val_check_interval"]
    by_time, choices["max_time"] = time_of(interval), time_of(choices.get("max_time"))
    choices["val_check_interval"] = by_time or 1  # what is counted in steps is for the loop below
    if profiler := choices.get("profiler"):
        choices["profiler"] = PROFILERS[profiler](dirpath=folder, filename="profile")
    try:
        trainer = L.Trainer(
            **choices,
            logger=parts.loggers or False,
            callbacks=callbacks,
            plugins=[SafeCheckpointIO()],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, TypeError) as refusal:
        raise ConfigError(f"trainer: {str(refusal).strip().splitlines()[0]}") from refusal
    except ImportError as missing:
        raise MachineError(f"trainer: {str(missing).strip().splitlines()[0]}") from missing
    trainer.fit_loop.epoch_loop = StepLoop(trainer, None if by_time else interval)
    return trainer


def planned_steps(choices: Mapping[str, Any], n_batches: int) -> int:
    """How many optimizer steps a run will take; -1 where only time ends it."""
    an_epoch = max(1, steps_in(limited_batches(choices, n_batches), choices.get("accumulate_grad_batches", 1)))
    limits = [choices["max_steps"]] if (choices.get("max_steps") or -1) > 0 else []
    limits += [choices["max_epochs"] * an_epoch] if (choices.get("max_epochs") or -1) > 0 else []
    return min(limits, default=-1)


def with_validations(choices: dict[str, Any], steps: int) -> dict[str, Any]:
    """A validation after every tenth of the steps of a run, if nobody said how many steps are between two."""
    choices = dict(choices)
    asked = choices.get("val_check_interval")
    if asked is None:
        choices["val_check_interval"] = max(1, steps // 10) if steps > 0 else 1000
    elif isinstance(asked, float):
        choices["check_val_every_n_epoch"] = choices.get("check_val_every_n_epoch") or 1  # a share is of an epoch
    return choices


ANSWERS = {"token": "a token of the vocabulary", "tag": "a tag for each token", "class": "a class for each row"}


def check_head(job: Job) -> None:
    """Whether the head gives the answers that the objective asks for.

    Raises:
        ConfigError: It gives others.
    """

    def able(family: str, fact: str, kind: Answer) -> list[str]:
        """The blocks of a family that ask or answer like this."""
        return [n for n in REGISTRY.names(family) if getattr(REGISTRY[n].constructor, fact, None) == kind]

    head, objective = job.spec["model"]["head"]["name"], job.spec["objective"]["name"]
    answers = REGISTRY[head].constructor.answers  # type: ignore[attr-defined]
    asks = REGISTRY[objective].constructor.asks  # type: ignore[attr-defined]
    if answers == asks:
        return
    heads = [f"head={REGISTRY[n].short}" for n in able("head", "answers", asks)]
    objectives = [f"objective={REGISTRY[n].short}" for n in able("objective", "asks", answers)]
    raise ConfigError(
        f"head: {REGISTRY[head].short} answers with {ANSWERS[answers]}, but {REGISTRY[objective].short} asks for "
        f"{ANSWERS[asks]}. Use {', '.join(heads[:-1]) + ' or ' * (len(heads) > 1) + heads[-1]}"
        f"{f', or {objectives[0]}' if objectives else ''}."
    )


def check_trees(model: Model, data: Data) -> None:
    """Whether the data has the trees that a position of the model follows.

    Raises:
        ConfigError: It has none, or the objective does not keep those that are given with it.
    """
    following = [m for m in model.modules() if isinstance(m, AttentionPosition) and m.needs_trees]
    if not following:
        return
    if data.trees == "given" and not data.objective.keeps_trees:
        able = [n for n in REGISTRY.names("objective") if getattr(REGISTRY[n].constructor, "keeps_trees", False)]
        raise ConfigError(
            f"objective: it must keep the trees that are given with data {registered(data, 'data')!r} for position "
            f"{registered(following[-1], 'position')!r}, but {registered(data.objective, 'objective')!r} does not. "
            f"Use {' or '.join(f'objective={REGISTRY[n].short}' for n in able)}."
        )
    if data.trees != "none":
        return
    given, able = registered(data, "data"), [n for n in REGISTRY.names("data") if "trees" in REGISTRY[n].choices]
    others = " or ".join(f"data={REGISTRY[n].short}" for n in able)
    where = "Set" if f"data/{given}" in able else f"Use {others}, with"
    raise ConfigError(
        f"position: {registered(following[-1], 'position')} needs the governor of each token in a tree, but data "
        f"{given!r} gives no trees. {where} data.trees=nesting, or choose another position."
    )


def check_monitors(job: Job, callbacks: list[L.Callback], data: Data, objective: Objective, accelerator: str) -> None:
    """Whether a validation measures what each callback's ``monitor`` names.

    Where that is more than the loss, the model is built and tried on one batch: what blocks and objectives report
    beside it is known by then alone.

    Raises:
        ConfigError: It does not; all such callbacks are named.
    """
    named = [(registered(callback, "callback"), getattr(callback, "monitor", None)) for callback in callbacks]
    asked = [(name, monitor) for name, monitor in named if isinstance(monitor, str)]
    if all(monitor == "val/loss" for _, monitor in asked):
        return
    device = torch.device("cuda" if accelerator == "gpu" and torch.cuda.is_available() else accelerator)
    batch = move_data_to_device(next(iter(data.val_dataloader())), device)
    with torch.no_grad():
        measured = by_name(*objective.loss(build(job, "model", data.vocab_size).to(device).eval(), batch))
    metrics = [f"val/{name}" for name in measured] + ["val/bits_per_byte"] * bool(bytes_per_token(data.facts, "val"))
    wrong = [
        f"callbacks.{name}.monitor: must be one of {', '.join(metrics)}, but got {monitor!r}{guess(monitor, metrics)}"
        for name, monitor in asked
        if monitor not in metrics
    ]
    if wrong:
        raise ConfigError("\n".join(wrong))


def registered(block: Any, family: str) -> str:
    """The name of a block, as a person would write it."""
    kinds = {REGISTRY[n].constructor: REGISTRY[n].short for n in REGISTRY.names(family)}
    return kinds.get(type(block), type(block).__name__)


def check_data(checkpoint: Mapping[str, Any], data: Data) -> None:
    """Warn where a run goes on with other data: it may be meant, but it is another run."""
    before = checkpoint.get("blockwright", {}).get("fingerprint")
    if before and data.facts.get("fingerprint") not in (None, before):
        console.print("the data is not what the checkpoint was trained on: its fingerprint differs.", "bad")


def spec_as_run(job: Job, parts: Parts) -> dict[str, Any]:
    """The spec as it may be written down, with the precision that ``auto`` came to on this machine."""
    trainer = {**(job.written.get("trainer") or {}), "precision": parts.trainer["precision"]}
    return {**job.written, "trainer": trainer}


def show_resumed(checkpoint: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Say where a run goes on, and what is chosen otherwise from here on."""
    changes = all_changes(checkpoint, spec)
    console.print(f"resumed at step {checkpoint['global_step']:,}{', with other choices:' * bool(changes)}", "dim")
    for line in changes:
        console.print(f"  {line}", "dim")


def complain(wrong: list[BlockwrightError]) -> None:
    """Raise all of them as one; the first says the kind.

    Raises:
        BlockwrightError: There is one.
    """
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise type(wrong[0])("\n".join(dict.fromkeys(map(str, wrong)))) from wrong[0]


def files(folder: Path, parts: Parts) -> dict[str, str]:
    """What the run left beside its record, from its folder on."""
    saved = next((c.files for c in parts.callbacks if isinstance(c, Checkpoint) and hasattr(c, "folder")), {})
    found = {name: str(path.relative_to(folder)) for name, path in saved.items()}
    found |= {
        name: file for name, file in (("metrics", "metrics.csv"), ("config", "config.yaml")) if (folder / file).exists()
    }
    return found


def seed_everything(seed: int) -> None:
    """Start every global generator from ``seed``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


NOISE = (
    ".*`srun` command is available.*",  # it starts jobs on a cluster, and a login node has it as well
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning behind torch
    ".*GPU available but not used.*",  # it was asked for
    ".*does not have many workers.*",  # batches cost microseconds
    ".*is smaller than the logging interval.*",  # the last step is always logged
    ".*PyTorch Profiler default schedule will be overridden.*",  # a run may be short
    ".*checkpoint directory .* exists and is not empty.*",
    "Be aware that when using `ckpt_path`, callbacks used.*",  # taking one out is a choice
)
"""Warnings that tell a user of this program nothing."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's advice, and without its handlers, which would print our lines twice."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for text in NOISE:
            warnings.filterwarnings("ignore", text)
        yield


def bytes_per_token(facts: Mapping[str, Any], half: str) -> float:
    """Bytes of text that a token of one half of the data stands for; 0 where the data is no text."""
    tokens, size = facts.get(f"{half}_tokens"), facts.get(f"{half}_bytes")
    return size / tokens if tokens and size else float(facts.get("bytes_per_token") or 0.0)
