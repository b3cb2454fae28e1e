"""What this machine has, and what Lightning's Trainer is asked for on it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from registry.errors import ConfigError, MachineError
from training.trainer import check

DEFAULTS = {"devices": 1, "log_every_n_steps": 10, "check_val_every_n_epoch": None}
"""Where a run differs from Lightning when nothing is said; ``None``: validations are counted across epochs."""

PLAIN = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
"""What Lightning's old names of precisions mean."""


def trainer_choices(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What ``trainer.*`` comes to on this machine, as arguments of Lightning's Trainer.

    Raises:
        ConfigError: A name or a value is wrong.
        MachineError: This machine does not have the accelerator, as many devices, or the other machines.
    """
    check(asked)
    made = DEFAULTS | {name: value for name, value in asked.items() if value is not None}
    made["accelerator"] = accelerator(made.get("accelerator", "auto"), made["devices"])
    check_cluster(made.get("num_nodes", 1))
    asked_for = str(made.get("precision", "auto"))
    made["precision"] = precision(made["accelerator"]) if asked_for == "auto" else PLAIN.get(asked_for, asked_for)
    if made["accelerator"] == "cpu" and asked_for in ("16", "16-mixed"):  # Lightning would take bf16-mixed instead
        raise MachineError(
            f"trainer.precision: must be one that a CPU mixes, but got {asked_for}. Use bf16-mixed, or 32-true."
        )
    made.setdefault("max_epochs", -1)  # else Lightning takes 1000 for granted
    return made


def accelerator(asked: str, devices: Any) -> str:
    """The accelerator by name, with as many devices as are asked for.

    Raises:
        ConfigError: Processes on a CPU are chosen by index.
        MachineError: There are not as many devices.
    """
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    there["gpu"] = there["cuda"] or there["mps"]
    name = asked
    if asked == "auto":
        name = "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if name == "cpu":
        if isinstance(devices, list | tuple) or "," in str(devices) or str(devices) == "-1":
            raise ConfigError(f"trainer.devices: must be a number of processes on a CPU, but got {devices}.")
        wanted = _count(devices)
        if wanted > (os.cpu_count() or 1) or (asked == "auto" and wanted > 1):
            raise MachineError(
                f"trainer.devices: must be 1 on a machine without a GPU, but got {devices}. "
                "For several processes on the CPU's cores set trainer.accelerator=cpu."
                if asked == "auto"
                else f"trainer.devices: must be at most {os.cpu_count()}, the cores of this machine, but got {devices}."
            )
        return name
    there |= {n: 0 for n in AcceleratorRegistry.available_accelerators() - set(there) if not _is_available(n)}
    if name not in there:
        return name  # a TPU, or an accelerator of somebody's own: Lightning counts its devices
    if not there[name]:
        raise MachineError(
            f"trainer.accelerator: must be available on this machine, but {asked!r} is not. Use auto or cpu."
        )
    if _count(devices) > there[name] or _highest(devices) >= there[name]:
        raise MachineError(f"trainer.devices: must be among the {there[name]} of this machine, but got {devices}.")
    return name


def _is_available(accelerator: str) -> bool:
    return bool(AcceleratorRegistry[accelerator]["accelerator"].is_available())


CLUSTERS = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""Variables in which whatever starts a process on each of several machines says which of them this one is."""


def check_cluster(machines: int) -> None:
    """Whether something starts this program on as many machines.

    Raises:
        MachineError: Nothing does, and the processes of this machine would wait for the others.
    """
    if machines > 1 and not any(name in os.environ for name in CLUSTERS):
        raise MachineError(
            f"trainer.num_nodes: must be 1 where nothing starts this program on several machines, but got {machines}. "
            "Start it with srun, torchrun or mpirun, or set NODE_RANK, MASTER_ADDR and MASTER_PORT on each."
        )


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
