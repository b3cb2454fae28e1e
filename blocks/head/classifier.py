"""A class for each row: its tokens are pooled into one vector, and that is scored.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805 (the first token represents the row)
Lin et al. 2017, https://arxiv.org/abs/1703.03130 (learned attention over the tokens)
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from blocks.contracts import Answer, Cost, Head, Layout
from blocks.head._cross_entropy import linear_cross_entropy
from registry import register

POOLS = ("cls", "mean", "last", "attention")


@register("head/classifier")
class Classifier(Head):
    """Pools the real tokens of each row and scores every class; a row is one document.

    Args:
        n_classes: How many classes there are.
        pool: Which vector represents the row: cls (its first token's), last (its last token's), mean, or
            attention (a mean weighted by a learned query).
        dropout: Probability of dropping a feature of the pooled vector while training.

    Raises:
        ValueError: There are fewer than two classes, or no pool has that name.
    """

    answers: ClassVar[Answer] = "class"

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        /,
        *,
        n_classes: int = 2,
        pool: Literal["cls", "mean", "last", "attention"] = "cls",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocab_size, d_model)
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, but got {n_classes}.")
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, but got {pool!r}.")
        self.pool = pool
        self.to_score = nn.Linear(d_model, 1, bias=False) if pool == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.to_logits = nn.Linear(d_model, n_classes)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        return self.to_logits(self._pooled(x, layout))

    def loss(self, x: Tensor, layout: Layout, targets: Tensor) -> Tensor:
        if targets.ndim != 1:
            raise ValueError(
                f"targets must be one class for each row, (B,), for {type(self).__name__}, "
                f"but got {tuple(targets.shape)}. "
                "Choose head=linear or head=tagger for an objective that asks about tokens."
            )
        return linear_cross_entropy(self._pooled(x, layout), self.to_logits.weight, self.to_logits.bias, targets)

    def cost(self, length: int) -> Cost:
        scored = 0 if self.to_score is None else length * self.to_score.weight.numel()
        flops = 2 * (scored + self.to_logits.weight.numel())
        return Cost(sum(p.numel() for p in self.parameters()), flops, 0, steps=1)

    def _pooled(self, x: Tensor, layout: Layout) -> Tensor:
        """(B, T, D) -> (B, D)"""
        real = layout.real.unsqueeze(-1)  # (B, T, 1)
        if self.pool == "cls":
            chosen = (layout.position == 0).long().argmax(dim=1)
            pooled = x[torch.arange(len(x), device=x.device), chosen]
        elif self.pool == "last":
            pooled = x[torch.arange(len(x), device=x.device), layout.position.argmax(dim=1)]
        elif self.to_score is not None:
            weight = self.to_score(x).masked_fill(~real, torch.finfo(x.dtype).min).softmax(dim=1)
            pooled = (weight * real * x).sum(dim=1)
        else:
            pooled = (x * real).sum(dim=1) / real.sum(dim=1).clamp_min(1)
        return self.dropout(pooled)
