"""A score for each token by the embedding itself, whatever that is made of.

Press & Wolf 2016, https://arxiv.org/abs/1608.05859
Raffel et al. 2019, https://arxiv.org/abs/1910.10683 (dividing by the root of the width)
"""

from __future__ import annotations

from typing import Literal, NoReturn

import torch
from torch import Tensor, nn

from blocks.contracts import Cost, Embedding, Head, Layout, declare
from blocks.head._cross_entropy import scored_cross_entropy
from registry import register


@register("head/tied")
class TiedHead(Head):
    """Scores every token of the vocabulary by its own vector; has no table, and needs model.tie=true.

    Args:
        scale: What the stream is divided by on its way: nothing, or the root of d_model.
        bias: Whether each score has a bias.

    Raises:
        ValueError: ``scale`` is neither.
    """

    def __init__(
        self, vocab_size: int, d_model: int, /, *, scale: Literal["none", "root"] = "none", bias: bool = False
    ) -> None:
        super().__init__(vocab_size, d_model)
        if scale not in ("none", "root"):
            raise ValueError(f"scale must be none or root, but got {scale!r}.")
        self.vocab_size = vocab_size
        self.scale = d_model**-0.5 if scale == "root" else 1.0
        self.embedding: Embedding | None = None
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        declare(self, bias="bias")

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        return self._score(x)

    def loss(self, x: Tensor, layout: Layout, targets: Tensor) -> Tensor:
        return scored_cross_entropy(self._score, x, targets, self.vocab_size)

    def tie(self, embedding: Embedding) -> None:
        self.embedding = embedding

    def stand_alone(self) -> NoReturn:
        raise ValueError(
            f"head must be tied to an embedding for {type(self).__name__}, which has no table of its own, but got "
            "model.tie=false. "
            "Set model.tie=true, or choose head=linear."
        )

    def cost(self, length: int) -> Cost:
        flops = 0 if self.embedding is None else 2 * length * sum(p.numel() for p in self.embedding.parameters())
        return Cost(sum(p.numel() for p in self.parameters()), flops, 0, steps=1)

    def _score(self, x: Tensor) -> Tensor:
        if self.embedding is None:
            self.stand_alone()
        scale = self.scale * self.multiplier
        logits = self.embedding.unembed(x if scale == 1.0 else x * scale)
        return logits if self.bias is None else logits + self.bias
