"""What this machine has, and what Lightning's Trainer is asked for on it."""

from __future__ import annotations

import ctypes
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from registry.errors import ConfigError, MachineError
from registry.values import guess

OWN = {
    "logger": "logger=[...]",
    "callbacks": "callbacks=[...]",
    "enable_progress_bar": "callbacks=[...], with or without progress",
    "enable_model_summary": "nothing; the table of parts is always printed",
    "enable_checkpointing": "callbacks=[...], with or without checkpoint",
    "default_root_dir": "the folder of the run",
    "num_sanity_val_steps": "dry_run=true to try a composition",
    "barebones": "callbacks=[] and logger=none",
    "plugins": "trainer.precision and trainer.strategy",
    "enable_autolog_hparams": "nothing; run.json records them",
}
"""Names of Lightning's that something else in a config decides."""

DEFAULTS = {"devices": 1, "log_every_n_steps": 10, "check_val_every_n_epoch": None}
"""Where a run differs from Lightning when nothing is said; ``null`` counts validations in batches, across epochs."""

PRECISIONS = ("auto", "32-true", "bf16-true", "bf16-mixed", "16-true", "16-mixed", "64-true", "32", "bf16", "16", "64")
"""What numbers are computed in, by Lightning's names; ``auto`` is what is fast here."""


def trainer_choices(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What ``trainer.*`` comes to on this machine, as arguments of Lightning's Trainer.

    Raises:
        ConfigError: Lightning has no such name, or something else in the config decides it.
        MachineError: This machine does not have the accelerator or as many devices.
    """
    known = [p for p in inspect.signature(L.Trainer.__init__).parameters if p not in ("self", *OWN)]
    wrong = []
    for name in asked:
        if name in OWN:
            wrong.append(f"trainer.{name}: must not be set here, but with {OWN[name]}.")
        elif name not in known:
            wrong.append(f"trainer.{name}: Lightning's Trainer has no choice {name!r}{guess(name, known)}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    made = DEFAULTS | dict(asked)
    made["accelerator"] = accelerator(made.get("accelerator") or "auto", made["devices"])
    asked_for = str(made.get("precision") or "auto")
    if asked_for not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision: must be one of {', '.join(PRECISIONS)}, but got {asked_for}"
            f"{guess(asked_for, PRECISIONS)}"
        )
    made["precision"] = precision(made["accelerator"]) if asked_for == "auto" else asked_for
    if made["accelerator"] == "cpu" and asked_for in ("16", "16-mixed"):  # Lightning would take bf16-mixed instead
        raise MachineError(
            f"trainer.precision: must be one that a CPU mixes, but got {asked_for}. Use bf16-mixed, or 32-true."
        )
    steps = made.get("max_steps")
    if steps is not None and (not isinstance(steps, int) or steps < -1 or steps == 0):
        raise ConfigError(f"trainer.max_steps: must be a number of steps (-1: no limit), but got {steps!r}.")
    if steps in (None, -1) and made.get("max_epochs") is None and made.get("max_time") is None:
        raise ConfigError("trainer: must say when to stop, but got none of max_steps, max_epochs and max_time.")
    if made.get("max_epochs") is None:
        made["max_epochs"] = -1  # else Lightning takes 1000 for granted
    return made


def accelerator(asked: str, devices: Any) -> str:
    """The accelerator by name, with as many devices as are asked for.

    Raises:
        MachineError: There are not as many.
    """
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    there["gpu"] = there["cuda"] or there["mps"]
    name = asked
    if asked == "auto":
        name = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if name == "cpu":
        wanted = _count(devices)
        if wanted > (os.cpu_count() or 1) or (asked == "auto" and wanted > 1):
            raise MachineError(
                f"trainer.devices: must be 1 on a machine without a GPU, but got {devices}. "
                "For several processes on the CPU's cores set trainer.accelerator=cpu."
                if asked == "auto"
                else f"trainer.devices: must be at most {os.cpu_count()}, the cores of this machine, but got {devices}."
            )
        return name
    if name not in there:
        return name  # a TPU, or an accelerator of somebody's own: Lightning knows
    if not there[name]:
        raise MachineError(f"trainer.accelerator: must be there to be used, but this machine has no {asked!r}.")
    if _count(devices) > there[name] or _highest(devices) >= there[name]:
        raise MachineError(f"trainer.devices: must be among the {there[name]} of this machine, but got {devices}.")
    return name


def precision(accelerator: str) -> str:
    """The fastest precision that trains as well as float32: bfloat16 where the hardware multiplies in it."""
    if accelerator in ("cuda", "gpu") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    if accelerator == "cpu" and cpu_multiplies_bf16():
        return "bf16-mixed"
    return "32-true"


def cpu_multiplies_bf16() -> bool:
    """Whether the processor has instructions for products of bfloat16 (AVX512-BF16 or AMX)."""
    asks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(ask is not None and ask() for ask in asks)


def keep_freed_memory() -> bool:
    """Have glibc keep the memory of freed tensors for the next ones; whether it does.

    By default it hands large pieces back to the system and asks for them anew, and a step on long rows spends
    more time on faulting pages in than on arithmetic (``benchmarks/scaling.py`` prints growth beyond linear then).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # another C library
        return False
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, most = -1, -3, 2**31 - 1
    return bool(mallopt(M_MMAP_THRESHOLD, most) and mallopt(M_TRIM_THRESHOLD, most))


def describe(accelerator: str) -> str:
    """The device in words, for the record and the head of the output."""
    if accelerator in ("cuda", "gpu") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return accelerator if accelerator != "cpu" else f"cpu, {threads} thread{'s' * (threads != 1)}"


def _count(devices: Any) -> int:
    if isinstance(devices, (list, tuple)):
        return len(devices)
    text = str(devices)
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.lstrip("-").isdigit() and int(text) > 0 else 1  # -1 and auto: all there are


def _highest(devices: Any) -> int:
    indices = devices if isinstance(devices, (list, tuple)) else str(devices).split(",") if "," in str(devices) else []
    return max((int(i) for i in indices if str(i).strip()), default=-1)
