"""What every family of training promises: tokenizer, objective, data, optimizer, schedule, callback, logger.

Constructors: ``def __init__(self, <facts from the run>, /, *, <choices from the config>)``

    Tokenizer()                                            Optimizer()
    Objective(tokenizer, max_length, shape, gives)         Schedule(max_steps)
    Data(tokenizer, objective, max_length, seed)           Callback()
                                                           Logger(folder)

A callback that follows a metric of the validations has its name in ``monitor``; the run refuses a name that no
validation measures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import lightning as L
import numpy as np
from torch import Tensor, nn

from blocks.contracts import Answer, Layout, Model
from training.batch import Batch

Shape = Literal["encoder", "decoder", "encoder_decoder"]
"""Which stacks a model has. An encoder alone reads both ways, a decoder hides the future, and with both the
decoder reads what the encoder made of a source."""

Gives = Literal["text", "pairs"]
"""What data is made of: running text, cut to windows; or sources and their targets."""


Trees = Literal["none", "made", "given"]
"""Where the governors of data's tokens (``Layout.heads``) come from.

``made``: from the tokens that a model is shown, after an objective has hidden what it asks for, so that a tree holds
nothing of the answer. ``given``: with the data, for the whole text; they are those of hidden words as well."""

TreeMaker = Callable[[np.ndarray], np.ndarray]
"""Finds the governor of each token of some rows, from their ids alone: (B, T) to indices into the row (B, T).

A root has its own index."""


def shape_of(model: Mapping[str, Any]) -> Shape:
    """The shape of the model that a complete spec describes."""
    return "_".join(stack for stack in ("encoder", "decoder") if model.get(stack))  # type: ignore[return-value]


class Example(NamedTuple):
    """One piece of data, in token ids (1-d int arrays).

    tokens: a window of running text, or the target of a pair (without bos and eos).
    source: the other half of a pair. None: running text.
    document: for each token of a window, which of its documents it belongs to, from 0. None: all are one.
    heads: for each token of a window, the index in the window of its governor in a tree that is given with the data: a
        token of the same document, or itself (a root). None: no tree is given.
    """

    tokens: np.ndarray
    source: np.ndarray | None = None
    document: np.ndarray | None = None
    heads: np.ndarray | None = None


class Tokenizer(ABC):
    """Text to ids and back.

    ``pad, bos, eos, mask`` come first, ``text_ids`` stand for text, ``sentinels`` (marks for holes in a text) come
    last. An objective that needs sentinels reserves them in its constructor.
    """

    families: ClassVar[tuple[str, ...]] = ("tokenizer",)

    pad: int = 0
    bos: int = 1
    eos: int = 2
    mask: int = 3

    n_sentinels: int = 0

    @property
    @abstractmethod
    def text_ids(self) -> range:
        """The ids that stand for text. Known after ``train``."""

    @property
    def sentinels(self) -> range:
        """The ids that mark holes. Known after ``train``."""
        return range(self.text_ids.stop, self.text_ids.stop + self.n_sentinels)

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special ones included. Known after ``train``."""
        return self.text_ids.stop + self.n_sentinels

    def reserve(self, n_sentinels: int) -> None:
        """Keep at least so many ids for sentinels; before anyone asks for ``vocab_size``."""
        self.n_sentinels = max(self.n_sentinels, n_sentinels)

    def train(self, texts: Iterable[str]) -> None:
        """Learn the vocabulary from the training texts; nothing to learn for some."""
        return None

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
        """All that ``encode`` depends on, learned or chosen, in plain containers (JSON). Tokens are cached by it.

        The sentinels are not in it: an objective reserves them.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
        return None


class Objective(ABC):
    """What a model is asked: makes batches out of examples and losses out of batches.

    Its constructor raises ``ValueError`` where a model of this ``shape`` can not be asked, or not about such data.
    """

    families: ClassVar[tuple[str, ...]] = ("objective",)

    asks: ClassVar[Answer] = "token"
    """What it wants of a head."""

    overlap: ClassVar[int] = 0
    """How many tokens a window of running text shares with the one before it."""

    packs: ClassVar[bool] = True
    """Whether it keeps the documents of a window apart."""

    keeps_trees: ClassVar[bool] = False
    """Whether its rows keep the trees that are given with the data. Trees that are made come after it."""

    trees: TreeMaker | None = None
    """Makes the trees of the rows that a model is shown, also those of a prompt. Data whose trees are made sets it."""

    shown: float = 0.0
    """The share of the tokens asked for that the model is shown as they are, all the same."""

    def __init__(self, tokenizer: Tokenizer, max_length: int, shape: Shape, gives: Gives, /) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.shape = shape
        self.gives = gives

    def window(self, length: int) -> int:
        """How many tokens of running text make rows of at most ``length`` tokens."""
        return length

    def room(self, tokens: int, source: int) -> int:
        """The longest row that the model reads for a pair of ``tokens`` target and ``source`` tokens."""
        return max(source, tokens + 1) if self.shape == "encoder_decoder" else source + tokens + 1

    @abstractmethod
    def batch(self, examples: list[Example], rng: np.random.Generator) -> Batch:
        """Examples of any lengths to one batch on the CPU; what it draws comes from ``rng`` alone."""

    @abstractmethod
    def prompt(self, text: str) -> Example:
        """How the trained model is asked to go on: ``tokens`` begin its answer, ``source`` is for its encoder.

        For pairs ``text`` is the source. The answer ends at ``eos``, or at a second sentinel if ``tokens`` end in one.
        """

    def weight(self, batch: Batch) -> Tensor:
        """What the loss of ``batch`` is a mean over, and so what it weighs in a mean over batches; a scalar.

        The number of targets. An objective that weighs its targets gives the sum of their weights.
        """
        return batch.n_targets

    def loss(self, model: Model, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and what is worth logging; scalars.

        ``nats`` is always among the latter: the cross-entropy of a target, without what blocks reported (such as a
        balance of experts), which is in the loss and beside it under its own name. All of them are means over what
        ``weight`` counts: of several micro-batches, or several processes, each weighs as much as it has targets, the
        auxiliary losses like the rest.
        """
        asked: Any = model  # its parts are modules, which a type checker can not call
        layout, memory, reports = batch.layout.fresh(), None, []
        if batch.source is not None and batch.source_layout is not None:
            source_layout = batch.source_layout.fresh()
            memory = asked.encode(batch.source, source_layout)
            reports += _reports(source_layout)
        x, _ = asked.features(batch.tokens, layout, memory=memory)
        nats = asked.head.loss(x, layout, batch.targets)
        reports += _reports(layout)

        log = {"nats": nats.detach()}
        for name, loss in reports:
            log[name] = log.get(name, 0.0) + loss.detach()
        return sum((loss for _, loss in reports), start=nats), log


def _reports(layout: Layout) -> list[tuple[str, Tensor]]:
    """The auxiliary losses that blocks reported in a forward."""
    assert layout.scratch is not None
    return [(name, loss) for name, losses in layout.scratch.losses.items() for loss in losses]


class Data(L.LightningDataModule, ABC):
    """Training and validation batches.

    ``setup`` reads or makes the data, trains the tokenizer and tries a first batch; the run calls it before it builds
    the model, and a second call does nothing. Batches are a function of (seed, epoch, index) and nothing else.

    Raises:
        DataError: (``setup``) the data is missing, empty, unreadable or does not fit the model.
    """

    families: ClassVar[tuple[str, ...]] = ("data",)
    gives: ClassVar[Gives] = "text"

    trees: Trees = "none"
    """Where the trees of its batches (``Layout.heads``) come from. Known before ``setup``."""

    def __init__(self, tokenizer: Tokenizer, objective: Objective, max_length: int, seed: int, /) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.objective = objective
        self.max_length = max_length
        self.seed = seed

    @property
    def vocab_size(self) -> int:
        """After ``setup``."""
        return self.tokenizer.vocab_size

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """After ``setup``: fingerprint (hex digest of the content), train_tokens, val_tokens, train_bytes,
        val_bytes, bytes_per_token, unigram_entropy (nats a token, of the validation text under the training
        counts), source (a short human description), prompt (a short one from the training data, of one line), notes
        (what a person should know of how the data is used, a sentence each). Plain containers."""

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

    jumps: ClassVar[bool] = False
    """Whether it falls in steps of its own, as by a tenth at some milestones, and not little by little."""

    def __init__(self, max_steps: int, /) -> None:
        self.max_steps = max_steps

    @abstractmethod
    def __call__(self, step: int) -> float:
        """In [0, 1]; ``step`` counts from 0."""
