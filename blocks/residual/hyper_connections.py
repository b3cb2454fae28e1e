"""Several streams side by side: a sublayer reads a mixture of them, and they mix with each other as it writes.

Zhu et al. 2024, https://arxiv.org/abs/2409.19606
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.contracts import Cost, Norm, Residual, Site, declare
from registry import Factory, register


@register("residual/hyper_connections", norm="norm/rms")
class HyperConnections(Residual):
    """Learned weights, and small corrections that depend on the token, tie a sublayer to several streams.

    At the start the corrections aside: read one stream (another in each layer), keep every stream,
    write to all alike, which is pre-norm. The weights that do not depend on the token are not decayed, the others are,
    as in the paper.

    Args:
        norm: The norm before the sublayer.
        streams: How many streams.
        weights: Whether the weights follow the token (dynamic) or are the same for all (static).
        dropout: Probability of dropping a feature of what the sublayer says while training.

    Raises:
        ValueError: There are fewer than two streams, or ``weights`` is neither.
    """

    final_norm = True

    def __init__(
        self,
        d_model: int,
        site: Site,
        /,
        *,
        norm: Factory[Norm],
        streams: int = 4,
        weights: Literal["dynamic", "static"] = "dynamic",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, site)
        if streams < 2:
            raise ValueError(f"streams must be at least 2, but got {streams}. For one stream choose pre_norm.")
        if weights not in ("dynamic", "static"):
            raise ValueError(f"weights must be dynamic or static, but got {weights!r}.")
        self.d_model = d_model
        self.streams = streams
        self.norm = norm(d_model)
        self.reads = nn.Parameter(torch.eye(streams)[site.depth % streams])  # (n,)
        self.keeps = nn.Parameter(torch.eye(streams))  # (n, n), from stream, to stream
        self.writes = nn.Parameter(torch.ones(streams))  # (n,)
        declare(self, reads="dynamics", keeps="dynamics", writes="dynamics")
        self.dynamic = None
        if weights == "dynamic":
            self.dynamic = nn.Parameter(0.01 * torch.randn(streams + 2, d_model))
            self.strength = nn.Parameter(torch.full((3,), 0.01))
            declare(self, dynamic="matrix", strength="gain")
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        weight: Tensor = self.reads
        if self.dynamic is not None:
            weight = weight + self.strength[0] * self._corrections(x, self.dynamic[:1]).squeeze(-1)  # (B, T, n)
        return self.norm((weight.unsqueeze(-1) * x).sum(dim=2).to(x.dtype))

    def write(self, x: Tensor, y: Tensor) -> Tensor:
        keeps: Tensor = self.keeps
        writes: Tensor = self.writes
        if self.dynamic is not None:
            corrections = self._corrections(x, self.dynamic[1:])  # (B, T, n, n + 1)
            keeps = keeps + self.strength[1] * corrections[..., :-1]
            writes = writes + self.strength[2] * corrections[..., -1]
        with _unrounded(x.device.type):
            kept = torch.matmul(keeps.transpose(-1, -2).to(x.dtype), x)  # (B, T, n, D)
        return kept + writes.unsqueeze(-1).to(x.dtype) * self.dropout(y).unsqueeze(2)

    def cost(self, length: int) -> Cost:
        mixed = self.streams * self.streams * self.d_model
        corrected = 0 if self.dynamic is None else self.streams * self.dynamic.numel()
        flops = 2 * length * (mixed + corrected)
        return Cost(sum(p.numel() for p in self.parameters()), flops, 0, steps=1)

    def _corrections(self, x: Tensor, weight: Tensor) -> Tensor:
        """Between -1 and 1, for each stream of each token. (B, T, n, D) -> (B, T, n, outputs)"""
        return torch.tanh(F.linear(F.layer_norm(x, x.shape[-1:]), weight))


def _unrounded(device: str) -> AbstractContextManager[Any]:
    """Keeps the streams in their own precision where autocast would round a product."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
