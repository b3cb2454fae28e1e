"""What every family of training promises: tokenizer, objective, data, optimizer, schedule, callback, logger.

Constructors: ``def __init__(self, <facts from the run>, /, *, <choices from the config>)``
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import lightning as L
import numpy as np
from torch import Tensor, nn

from blocks.contracts import Model
from training.batch import Batch


class Example(NamedTuple):
    """One piece of data, in token ids (1-d int arrays). source: None for text without a partner."""

    tokens: np.ndarray
    source: np.ndarray | None = None


class Tokenizer(ABC):
    """Text to ids and back.

    Ids 0 .. n_special - 1 are special; ``pad, bos, eos, mask`` are four of them and ``sentinels`` the rest.
    """

    families: ClassVar[tuple[str, ...]] = ("tokenizer",)

    pad: int = 0
    bos: int = 1
    eos: int = 2
    mask: int = 3
    sentinels: range = range(4, 4)

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many ids there are, special ones included. Known after ``train``."""

    def train(self, texts: Iterable[str]) -> None:
        """Learn the vocabulary from the training texts; nothing to learn for some."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Ids of ``text``, without special ones. ValueError for what it can not say."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; special ids are left out."""

    @abstractmethod
    def n_bytes(self, ids: np.ndarray) -> int:
        """How many bytes of UTF-8 these ids stand for; special ones stand for none."""

    def state(self) -> dict[str, Any]:
        """What ``train`` learned, in plain containers (JSON)."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""


class Objective(ABC):
    """What a model is asked: makes batches out of examples and losses out of batches."""

    families: ClassVar[tuple[str, ...]] = ("objective",)

    def __init__(self, tokenizer: Tokenizer, max_length: int, /) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    @abstractmethod
    def batch(self, examples: list[Example], rng: np.random.Generator) -> Batch:
        """Examples of any lengths to one batch on the CPU."""

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise (nats a target, scalar) and what else is worth logging (scalars)."""


class Data(L.LightningDataModule, ABC):
    """Training and validation batches. ``setup`` reads or makes the data; it is called once by the run.

    gives: "text" (running text, cut to windows) or "pairs" (source and target).
    """

    families: ClassVar[tuple[str, ...]] = ("data",)
    gives: ClassVar[str] = "text"

    def __init__(self, tokenizer: Tokenizer, objective: Objective, max_length: int, seed: int, /) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.objective = objective

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """After ``setup``."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """After ``setup``: fingerprint (hex digest of the content), train_tokens, val_tokens, train_bytes,
        val_bytes, bytes_per_token, unigram_entropy (nats a token, of the validation text under the training
        counts), source (a short human description). Plain containers."""

    @abstractmethod
    def samples(self) -> Iterator[str]:
        """Prompts from the validation data to show what the model says."""


class Optimizer(ABC):
    """Builds a ``torch.optim`` optimizer over a model's parameters."""

    families: ClassVar[tuple[str, ...]] = ("optimizer",)

    @abstractmethod
    def __call__(self, model: nn.Module) -> Any: ...


class Schedule(ABC):
    """The factor on the learning rate at each optimizer step."""

    families: ClassVar[tuple[str, ...]] = ("schedule",)

    def __init__(self, max_steps: int, /) -> None:
        self.max_steps = max_steps

    @abstractmethod
    def __call__(self, step: int) -> float:
        """In [0, 1]; ``step`` counts from 0."""
