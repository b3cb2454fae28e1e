"""Small runs on a small text, in seconds: what the tests of a run and of generation share."""

import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from registry import REGISTRY, plugins
from registry.slots import trace

TEXT = "".join(f"{a}{b} is {a} and {b}.\n" for a in string.ascii_lowercase for b in string.ascii_lowercase) * 3


@dataclass
class Job:
    """What ``registry.compose`` hands over."""

    spec: dict[str, Any]
    folder: Path
    origins: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def written(self) -> dict[str, Any]:
        return self.spec


def _small(text: Path) -> dict[str, Any]:
    return {
        "model": {"name": "decoder_only", "d_model": 32, "max_length": 32},
        "attention": {"name": "mha", "n_heads": 4},
        "norm": {"name": "rms"},
        "ffn": {"name": "mlp"},
        "residual": {"name": "pre_norm", "dropout": 0.1},
        "embedding": {"name": "token"},
        "head": {"name": "linear"},
        "init": {"name": "gpt2"},
        "decoder": {"n_layers": 1},
        "data": {"name": "text", "path": str(text), "batch_size": 4, "val_batches": 2},
        "tokenizer": {"name": "byte"},
        "objective": {"name": "auto"},
        "optimizer": {"name": "adamw", "lr": 3e-3},
        "schedule": {"name": "constant"},
        "seed": 0,
        "compile": False,
        "dry_run": False,
        "ckpt_path": None,
        "trainer": {"max_steps": 8, "precision": "32-true", "val_check_interval": 4, "log_every_n_steps": 2},
        "callbacks": ["checkpoint"],
        "logger": ["csv"],
    }


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def make_job(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A job of the small run with some of its config replaced; sections are merged key by key."""
    monkeypatch.setenv("BLOCKWRIGHT_CACHE", str(tmp_path / "cache"))
    return lambda name="run", **changes: job_of(text_file, tmp_path / name, changes)


def job_of(text: Path, folder: Path, changes: dict[str, Any]) -> Job:
    plugins.load_builtin()
    config = _small(text)
    for key, value in changes.items():
        old = config.get(key)
        refined = isinstance(value, dict) and isinstance(old, dict)
        if refined and key != "model" and value.get("name", old.get("name")) != old.get("name"):
            refined = False  # another block, with choices of its own
        config[key] = {**old, **value} if refined else value
    if config["model"]["name"] == "encoder_only":
        del config["decoder"]
    resolved = trace(config)
    folder.mkdir(parents=True, exist_ok=True)
    return Job(resolved.spec, folder, resolved.origins, config=config)


@pytest.fixture
def quiet() -> Iterator[None]:
    """For a test that builds Lightning's Trainer by itself: without its advice, as in a run."""
    from training.run import quiet_lightning

    with quiet_lightning():
        yield


@pytest.fixture
def hook() -> Iterator[dict[str, Callable[..., None]]]:
    """A callback block that calls what a test puts under "start" and "end" of a step."""
    do: dict[str, Callable[..., None]] = {}

    class Hook(L.Callback):
        """Calls a function of the test."""

        def on_train_batch_start(self, trainer, task, batch, batch_idx):
            if "start" in do:
                do["start"](trainer, task)

        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            if "end" in do:
                do["end"](trainer, task)

    REGISTRY.register("callback/hook", override=True)(Hook)
    yield do
    del REGISTRY._entries["callback/hook"]
