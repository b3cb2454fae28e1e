"""Only the best few keys of each query are read.

Gupta et al. 2021, https://arxiv.org/abs/2106.06899
"""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Normaliser
from registry import register


@register("normaliser/top_k")
class TopK(Normaliser):
    """A softmax over the ``k`` keys with the highest scores (more where they tie); the others get nothing.

    Args:
        k: Keys that a query reads.

    Raises:
        ValueError: ``k`` is less than 1.
    """

    def __init__(self, n_heads: int, /, *, k: int = 16) -> None:
        super().__init__(n_heads)
        if k < 1:
            raise ValueError(f"k must be at least 1, but got {k}.")
        self.k = k

    def forward(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        hidden = scores if allowed is None else scores.masked_fill(~allowed, float("-inf"))
        least = hidden.topk(min(self.k, scores.shape[-1]), dim=-1).values[..., -1:].detach()
        best = (hidden >= least) & hidden.isfinite()
        return super().forward(scores, best)
