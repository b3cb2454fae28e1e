"""A model small enough to follow by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import IGNORE, Layout, Memory


class Toy(nn.Module):
    """Embeds, adds the mean of what an encoder read, and scores; keeps the layouts it was given."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
        self.head = ToyHead(vocab_size)

    def features(self, tokens: Tensor, layout: Layout, state=None, memory: Memory | None = None):
        layout.report("balance", torch.tensor(0.5))
        layout.report("balance", torch.tensor(0.25))
        x = self.embedding(tokens)
        return (x if memory is None else x + memory.x.mean(1, keepdim=True)), state

    def encode(self, source: Tensor, layout: Layout) -> Memory:
        layout.report("balance", torch.tensor(1.0))
        layout.report("other", torch.tensor(2.0))
        return Memory(self.embedding(source), layout)


class ToyHead(nn.Linear):
    def __init__(self, vocab_size: int) -> None:
        super().__init__(8, vocab_size)

    def loss(self, x: Tensor, layout: Layout, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(x).flatten(0, -2), targets.flatten(), ignore_index=IGNORE)


@pytest.fixture
def toy() -> type[Toy]:
    return Toy
