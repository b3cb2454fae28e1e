"""What a run asks of this machine: bfloat16 where the hardware is fast at it, devices that are there."""

import re

import pytest
import torch

from registry.errors import ConfigError, MachineError
from training import machine


@pytest.mark.parametrize(
    ("bf16", "amx", "expected"),
    [(True, False, "bf16-mixed"), (False, True, "bf16-mixed"), (False, False, "32-true")],
)
def test_a_processor_trains_in_bf16_where_it_multiplies_in_it(monkeypatch, bf16, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert machine.precision("cpu") == expected


def test_a_torch_that_can_not_tell_means_float32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert machine.precision("cpu") == "32-true"


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "32-true")]
)
def test_a_gpu_trains_in_bf16_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert machine.precision("cuda") == expected


@pytest.mark.parametrize("asked", ["16", "16-mixed"])
def test_half_precision_is_not_replaced_in_silence(asked):
    with pytest.raises(MachineError, match=f"a CPU mixes, but got {asked}. Use bf16-mixed"):
        machine.trainer_choices({"max_steps": 1, "accelerator": "cpu", "precision": asked})


def test_a_person_s_precision_is_kept():
    made = machine.trainer_choices({"max_steps": 1, "accelerator": "cpu", "precision": "64-true"})
    assert made["precision"] == "64-true"


@pytest.mark.parametrize(
    ("gpus", "asked", "devices", "expected"),
    [
        (0, "auto", 1, "cpu"),
        (1, "auto", 1, "cuda"),
        (4, "auto", 4, "cuda"),
        (4, "gpu", "0,3", "gpu"),
        (2, "cpu", 1, "cpu"),
    ],
)
def test_auto_is_the_fastest_there_is(monkeypatch, gpus, asked, devices, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert machine.accelerator(asked, devices) == expected


def test_more_processes_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    assert machine.accelerator("cpu", 2) == "cpu"
    with pytest.raises(
        MachineError, match=r"^trainer\.devices: must be at most 2, the cores of this machine, but got 3\.$"
    ):
        machine.accelerator("cpu", 3)


@pytest.mark.parametrize("devices", [-1, [0, 1], "0,1"])
def test_processes_on_a_cpu_are_counted(devices):
    sentence = f"trainer.devices: must be a number of processes on a CPU, but got {devices}."
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        machine.accelerator("cpu", devices)


def test_an_accelerator_that_is_not_there_is_refused():
    with pytest.raises(
        MachineError,
        match=r"^trainer\.accelerator: must be available on this machine, but 'tpu' is not\. Use auto or cpu\.$",
    ):
        machine.accelerator("tpu", 1)


def test_machines_that_nothing_starts_this_program_on_are_refused(monkeypatch):
    for name in machine.CLUSTERS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MachineError, match=r"^trainer\.num_nodes: must be 1 where nothing starts .*, but got 2\."):
        machine.trainer_choices({"max_steps": 1, "accelerator": "cpu", "num_nodes": 2})
    monkeypatch.setenv("NODE_RANK", "0")
    assert machine.trainer_choices({"max_steps": 1, "accelerator": "cpu", "num_nodes": 2})["num_nodes"] == 2


@pytest.mark.parametrize(("old", "new"), machine.PLAIN.items())
def test_old_names_of_precisions_are_taken(old, new):
    if old != "16":  # refused on a CPU
        assert machine.trainer_choices({"max_steps": 1, "accelerator": "cpu", "precision": old})["precision"] == new


def test_freed_memory_is_kept_where_the_c_library_can():
    import platform

    assert machine.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
