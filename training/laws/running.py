"""Laws of what stands beside a run: callbacks and loggers."""

from __future__ import annotations

import copy
import io
import math
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from blocks.laws import Broken, hold
from blocks.laws.specs import model_spec
from registry import factory
from training.laws.trying import LENGTH
from training.meter import Meter
from training.task import SequenceTask


class Trip(NamedTuple):
    """What a short run left.

    step: Where it ended.
    saved: The files that were saved, by name, with the step of each.
    files: Which files there are in the end.
    said: What was printed.
    state: What the callback would leave in a checkpoint.
    """

    step: int
    saved: list[tuple[str, int]]
    files: list[str]
    said: str
    state: dict[str, Any]


def takes_part_in_a_run(callback: L.Callback) -> None:
    """A run of a few steps and validations goes through with it."""
    trip(copy.deepcopy(callback))


def remembers_by_its_state(callback: L.Callback) -> None:
    """Its state is plain enough for a checkpoint, and a new callback that takes it up has the same state."""
    used, other = copy.deepcopy(callback), copy.deepcopy(callback)
    trip(used)
    state = used.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        loaded = torch.load(file, weights_only=True)
    except Exception as error:
        raise Broken(f"its state must be of plain containers and tensors, but cannot be loaded: {error}.") from error
    other.load_state_dict(loaded)
    hold(other.state_dict() == state, f"a callback that takes up {state} must have that state: {other.state_dict()}.")


def trip(callback: L.Callback, lr: float = 1e-2, steps: int = 10) -> Trip:
    """A run of some steps on generated pairs, with a validation after every other step.

    Raises:
        ValueError: The callback follows a metric that no validation measures; a run refuses it before it starts.
    """
    from training.run import quiet_lightning

    monitor = getattr(callback, "monitor", "val/loss")
    if monitor != "val/loss":
        raise ValueError(f"monitor must be val/loss, but got {monitor!r}.")
    torch.manual_seed(0)
    tokenizer = factory("tokenizer/byte")()
    objective = factory("objective/next_token")(tokenizer, LENGTH, "decoder", "pairs")
    choices = {"longest": 6, "pairs": 4 * steps, "batch_size": 4, "val_batches": 1}
    data = factory({"name": "data/copy", **choices})(tokenizer, objective, LENGTH, 0)
    data.setup()
    spec = model_spec("model/decoder_only")
    small = {**spec, "d_model": 32, "decoder": {**spec["decoder"], "layers": spec["decoder"]["layers"][:1]}}
    task = SequenceTask(
        factory(small)(data.vocab_size),
        objective,
        factory({"name": "optimizer/sgd", "lr": lr, "momentum": 0.0})(),
        factory("schedule/constant")(steps),
    )
    saved: list[tuple[str, int]] = []
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, quiet_lightning(), redirect_stdout(said):
        trainer = L.Trainer(
            max_steps=steps,
            val_check_interval=2,
            accelerator="cpu",
            logger=False,
            callbacks=[Meter(), callback],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        save = trainer.save_checkpoint

        def note(path: Any, *args: Any, **kwargs: Any) -> None:
            saved.append((Path(path).name, trainer.global_step))
            save(path, *args, **kwargs)

        trainer.save_checkpoint = note  # type: ignore[method-assign, assignment]
        trainer.fit(task, datamodule=data)
        files = sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())
    return Trip(trainer.global_step, saved, files, said.getvalue(), callback.state_dict())


class Writer(NamedTuple):
    """A logger that can be made again: ``make(folder)`` builds it over a folder."""

    make: Callable[[Path], Logger]


def writes_what_it_is_given(writer: Writer) -> None:
    """Metrics that come, go and are no numbers are taken, left as they are, and stand in what is written as text."""
    given: list[dict[str, float]] = [{"a": 0.4375}, {"b/c": 0.8125, "a": 2.0}, {"a": math.nan, "b/c": math.inf}]
    with tempfile.TemporaryDirectory() as folder:
        logger = writer.make(Path(folder))
        hold(isinstance(logger.name, str), f"a logger must have a name, but has {logger.name!r}.")
        for step, metrics in enumerate(given):
            before = dict(metrics)
            logger.log_metrics(metrics, step=step)
            same = metrics.keys() == before.keys() and all(repr(metrics[k]) == repr(before[k]) for k in before)
            hold(same, "a logger must leave the metrics that it is given as they are, but changes them.")
        logger.save()
        logger.finalize("success")
        texts = [path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()]
    for value in (b"0.4375", b"0.8125"):
        written = not texts or any(
            b"\x00" in text or value in text for text in texts
        )  # a binary file is taken on trust
        hold(written, f"what is logged must be written, but {value.decode()} is not.")


def takes_hyperparameters(writer: Writer) -> None:
    """Hyperparameters, plain and nested, are taken."""
    with tempfile.TemporaryDirectory() as folder:
        writer.make(Path(folder)).log_hyperparams({"lr": 0.1, "model": {"name": "x", "sizes": [1, 2]}})
