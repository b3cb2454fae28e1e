"""What ``trainer.*`` may be: for each argument of Lightning's Trainer its values, or which option of ours decides it.

Lightning fails late on many wrong values and accepts others with an unintended meaning; here all of them are checked
together, before anything is built.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeGuard

import lightning as L
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import StrategyRegistry

from registry.errors import ConfigError
from registry.values import guess
from training.loop import steps_in

Check = Callable[[Any], str]
"""Takes a value; gives what it must be, as in "must be <...>", or nothing where it is that."""

PRECISIONS = ("auto", "32-true", "bf16-true", "bf16-mixed", "16-true", "16-mixed", "64-true", "32", "bf16", "16", "64")
"""What numbers are computed in, by Lightning's names; ``auto`` is what is fast on this machine."""

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
"""Each writes what it measured into the folder of the run."""


def whole(least: int, of: str, or_: int | None = None, no_limit: str = "no limit") -> Check:
    """A whole number of ``of``, at least ``least``, or the one word ``or_``."""
    must = f"a whole number of {of}, at least {least}" + (f" ({or_}: {no_limit})" if or_ is not None else "")
    return lambda value: "" if is_whole(value, least) or (is_whole(value) and value == or_) else must


def clip(value: Any) -> str:
    """The largest norm, or value, that a gradient may have."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return "" if fits else "a finite number, not negative (0: gradients are not clipped)"


def batches(of: str) -> Check:
    """A number of batches, or a share of all."""
    must = f"a whole number of {of}, at least 1, or a share of them, above 0.0 and at most 1.0"
    return lambda value: "" if is_whole(value, 1) or is_share(value) else must


def word(names: Callable[[], Iterable[str]]) -> Check:
    """One of some names."""
    return lambda value: "" if str(value) in set(names()) else f"one of {', '.join(names())}"


def switch(*words: str) -> Check:
    """True, false, or one of some words."""
    must = f"true or false{''.join(f', or {w}' for w in words)}"
    return lambda value: "" if isinstance(value, bool) or (isinstance(value, str) and value in words) else must


def time(value: Any) -> str:
    """A length of time, written in one of Lightning's two ways."""
    return "" if time_of(value) else "a length of time above 0, as in '00:08:00:00' (DD:HH:MM:SS) or {hours: 8}"


def interval(value: Any) -> str:
    """How often a run validates."""
    if is_whole(value, 1) or is_share(value) or (isinstance(value, str | Mapping) and time_of(value)):
        return ""
    return (
        "a whole number of optimizer steps, at least 1, or a share of an epoch, above 0.0 and at most 1.0, "
        "or a length of time, as in '00:00:30:00' (DD:HH:MM:SS)"
    )


def devices(value: Any) -> str:
    """How many devices, or which."""
    several = value.split(",") if isinstance(value, str) and "," in value else value
    if isinstance(several, list | tuple):
        indices = [int(i) if isinstance(i, str) and i.strip().isdigit() else i for i in several]
        fits = bool(indices) and all(is_whole(i, 0) for i in indices) and len(set(indices)) == len(indices)
    elif isinstance(value, str):
        fits = value == "auto" or (value.isdigit() and int(value) > 0)
    else:
        fits = is_whole(value, -1) and value != 0
    return "" if fits else "a number of devices, at least 1 (-1: all), auto, or different indices, as in [0,1]"


VALUES: dict[str, Check] = {
    "accelerator": word(lambda: ["auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())]),
    "strategy": word(lambda: ["auto", *(name for name in StrategyRegistry.available_strategies() if _trains(name))]),
    "devices": devices,
    "num_nodes": whole(1, "machines"),
    "precision": word(lambda: PRECISIONS),
    "max_epochs": whole(1, "epochs", or_=-1),
    "min_epochs": whole(0, "epochs"),
    "max_steps": whole(1, "optimizer steps", or_=-1),
    "min_steps": whole(0, "optimizer steps"),
    "max_time": time,
    "limit_train_batches": batches("batches of an epoch"),
    "limit_val_batches": batches("batches of a validation"),
    "val_check_interval": interval,
    "check_val_every_n_epoch": whole(1, "epochs"),
    "log_every_n_steps": whole(1, "optimizer steps"),
    "accumulate_grad_batches": whole(1, "micro-batches in an optimizer step"),
    "gradient_clip_val": clip,
    "gradient_clip_algorithm": word(lambda: ("norm", "value")),
    "deterministic": switch("warn"),
    "benchmark": switch(),
    "profiler": word(lambda: PROFILERS),
    "detect_anomaly": switch(),
    "sync_batchnorm": switch(),
}
"""What can be set. ``null`` leaves any of them unset."""

OWN = {
    "logger": "Use logger=[...]",
    "callbacks": "Use callbacks=[...]",
    "enable_progress_bar": "Use callbacks=[...], with or without progress",
    "enable_model_summary": "The table of parts is always printed",
    "enable_checkpointing": "Use callbacks=[...], with or without checkpoint",
    "default_root_dir": "A run has a folder of its own; use name=..., or the variable BLOCKWRIGHT_RUNS",
    "num_sanity_val_steps": "Use dry_run=true to try a composition",
    "fast_dev_run": "Use debug=tiny, or dry_run=true",
    "overfit_batches": "Use limit_train_batches, or less data",
    "barebones": "Use callbacks=[] and logger=none",
    "plugins": "Use trainer.precision and trainer.strategy",
    "enable_autolog_hparams": "The file run.json records what was chosen",
    "limit_test_batches": "A run trains and validates, and has no test",
    "limit_predict_batches": "A run trains and validates, and predicts nothing",
    "inference_mode": "A validation within training never uses it",
    "use_distributed_sampler": "The data divides its batches among the processes by itself",
    "reload_dataloaders_every_n_epochs": "The data orders its batches anew for every epoch by itself",
    "model_registry": "Use callbacks=[...] with one of your own",
}
"""Arguments of Lightning's that this program sets, or that have no effect in it; and what to do instead."""


def known() -> list[str]:
    """The arguments that Lightning's Trainer has and that can be set."""
    return [name for name in inspect.signature(L.Trainer.__init__).parameters if name != "self" and name not in OWN]


def wrong(asked: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with ``trainer.*``, a sentence for each value, before anything is known of machine and data."""
    for name, value in asked.items():
        if name in OWN:
            yield f"trainer.{name}: must not be set here, but got {value!r}. {OWN[name]}."
        elif name not in known():
            yield f"trainer.{name}: Lightning's Trainer has no choice {name!r}{guess(name, known())}"
        elif value is not None and (must := VALUES.get(name, lambda _: "")(value)):
            yield f"trainer.{name}: must be {must}, but got {value!r}{guess(value, _words(must))}"
    if asked.get("max_steps") in (None, -1) and asked.get("max_epochs") is None and asked.get("max_time") is None:
        yield "trainer: must say when to stop, but got none of max_steps, max_epochs and max_time."
    for unit in ("steps", "epochs"):
        least, most = asked.get(f"min_{unit}"), asked.get(f"max_{unit}")
        if is_whole(least, 0) and is_whole(most, 1) and least > most:
            yield f"trainer.min_{unit}: must be at most trainer.max_{unit}, but got {least} and {most}."
    algorithm, most = asked.get("gradient_clip_algorithm"), asked.get("gradient_clip_val")
    if algorithm is not None and not most:
        yield (
            f"trainer.gradient_clip_algorithm: must go with trainer.gradient_clip_val above 0, but got {algorithm!r} "
            f"and {most!r}."
        )


def check(asked: Mapping[str, Any]) -> None:
    """Whether ``trainer.*`` is what can be set, as far as it can be seen without machine and data.

    Raises:
        ConfigError: A name or a value is wrong; all that is wrong is in it, a line each.
    """
    lines = list(wrong(asked))
    if lines:
        raise ConfigError("\n".join(lines))


def fitted(choices: Mapping[str, Any], n_batches: int, n_val_batches: int) -> dict[str, Any]:
    """``choices`` for data of so many batches in an epoch and in a validation.

    Raises:
        ConfigError: A share of the batches is none, an epoch ends before its first validation, or the run before
            the least number of its steps or epochs.
    """
    lines = []
    for name, count in (("limit_train_batches", n_batches), ("limit_val_batches", n_val_batches)):
        limit = choices.get(name)
        if isinstance(limit, float) and int(limit * count) < 1:
            lines.append(
                f"trainer.{name}: must leave at least one batch of {count}, but got the share {limit!r}. "
                f"Use {1 / count:.2g} or more, or a number of batches."
            )
    limited = limited_batches(choices, n_batches)
    accumulated = min(choices.get("accumulate_grad_batches", 1), max(1, limited))
    every, epochs = choices.get("val_check_interval"), choices.get("check_val_every_n_epoch")
    steps = steps_in(limited, accumulated)
    if is_whole(every) and epochs is not None and every > steps and not lines:
        lines.append(
            f"trainer.val_check_interval: must be at most {steps}, the steps of an epoch, where "
            f"trainer.check_val_every_n_epoch is set, but got {every}. Set that to null to count steps across epochs."
        )
    lines += _out_of_reach(choices, steps)
    if lines:
        raise ConfigError("\n".join(lines))
    return {**choices, "accumulate_grad_batches": accumulated}


def _out_of_reach(choices: Mapping[str, Any], steps: int) -> Iterator[str]:
    """Least numbers that a run ends before; ``steps`` make an epoch."""
    epochs, most = choices.get("min_epochs"), choices.get("max_steps")
    if is_whole(epochs, 1) and is_whole(most, 1) and epochs * steps > most:
        fit = most // steps
        yield f"trainer.min_epochs: must be at most {fit}, the epochs in trainer.max_steps={most}, but got {epochs}."
    least, epochs = choices.get("min_steps"), choices.get("max_epochs")
    if is_whole(least, 1) and is_whole(epochs, 1) and epochs * steps < least:
        fit = epochs * steps
        yield f"trainer.min_steps: must be at most {fit}, the steps in trainer.max_epochs={epochs}, but got {least}."


def limited_batches(choices: Mapping[str, Any], n_batches: int) -> int:
    """How many batches of an epoch are used."""
    limit = choices.get("limit_train_batches")
    if limit is None:
        return n_batches
    return int(n_batches * limit) if isinstance(limit, float) else min(n_batches, limit)


def is_whole(value: Any, least: float = -math.inf) -> TypeGuard[int]:
    """Whether it is an integer, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_share(value: Any) -> TypeGuard[float]:
    """Whether it is a float above 0 and at most 1."""
    return isinstance(value, float) and 0.0 < value <= 1.0


def time_of(value: Any) -> timedelta | None:
    """A length of time above 0, from a timedelta, 'DD:HH:MM:SS' or {hours: 8}; None: it is none of these."""
    parts = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip()) if isinstance(value, str) else None
    try:
        if parts:
            days, hours, minutes, seconds = map(int, parts.groups())
            made = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        elif isinstance(value, Mapping):
            made = timedelta(**value)
        elif isinstance(value, timedelta):
            made = value
        else:
            return None
    except (TypeError, OverflowError, ValueError):  # no such unit, no number, or too long
        return None
    return made if made > timedelta(0) else None


def _trains(strategy: str) -> bool:
    """Whether a run with this strategy takes the steps that were asked for, and its results are there at the end.

    DeepSpeed accumulates gradients by itself. Processes that are spawned or forked by Lightning hand back the weights
    alone, without what was measured. An XLA device is chosen by ``accelerator``.
    """
    return re.search("deepspeed|spawn|fork|notebook|xla|^single_", strategy) is None


def _words(must: str) -> list[str]:
    return must.removeprefix("one of ").split(", ") if must.startswith("one of ") else []
