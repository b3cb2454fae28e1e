"""FIRE: a small network maps each distance, as a share of what the query could see, to a bias.

Li et al. 2023, https://arxiv.org/abs/2310.04418
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import AttentionPosition, Layout, declare
from blocks.position.distance import ahead, alike
from registry import register


@register("position/fire")
class Fire(AttentionPosition):
    """Adds ``f(log(1 + c d) / log(1 + c max(L, i)))`` for a query at i and a key d behind; c, L and f are learned.

    Li et al., equation 7; f has one hidden layer of ReLU (its last bias is left out: a softmax forgets it). Where
    queries look ahead, d has a sign and the further of the two positions stands for i.

    Args:
        hidden: Hidden width of the network f, shared by the heads; each head has its own output.
        length: L at the start: up to this position only distances count.
        rate: c at the start: how soon distances are squeezed.

    Raises:
        ValueError: ``hidden``, ``length`` or ``rate`` is not positive.
    """

    relative = False

    def __init__(
        self, n_heads: int, head_dim: int, /, *, hidden: int = 32, length: float = 512.0, rate: float = 0.1
    ) -> None:
        super().__init__(n_heads, head_dim)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, but got {hidden}.")
        if length <= 0 or rate <= 0:
            raise ValueError(f"length and rate must be positive, but got {length} and {rate}.")
        self.length = length
        self.rate = nn.Parameter(torch.tensor(rate))
        self.stretch = nn.Parameter(torch.tensor(1.0))  # of L, which in tokens would be too large to learn
        self.weight = nn.Parameter(torch.empty(hidden).uniform_(-1, 1))
        self.offset = nn.Parameter(torch.empty(hidden).uniform_(-1, 1))
        self.to_heads = nn.Parameter(torch.empty(n_heads, hidden).uniform_(-1, 1) * hidden**-0.5)
        declare(self, rate="dynamics", stretch="dynamics", weight="matrix", offset="bias", to_heads="matrix")

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        share = self.share(q_layout, k_layout, torch.promote_types(q.dtype, torch.float32))
        hidden = F.relu(share[..., None] * self.weight.to(share.dtype) + self.offset.to(share.dtype))
        return F.linear(hidden.to(self.to_heads.dtype), self.to_heads).permute(0, 3, 1, 2)

    def share(self, q_layout: Layout, k_layout: Layout, dtype: torch.dtype) -> Tensor:
        """Signed distances as a share of what could be seen: 0 at the query, 1 at the start. (B or 1, T, S)"""
        rate, length = self.rate.to(dtype).abs(), self.stretch.to(dtype).abs() * self.length
        behind = -ahead(q_layout, k_layout)
        rows = slice(1) if alike(q_layout, k_layout) else slice(None)
        furthest = torch.maximum(q_layout.position[rows, :, None], k_layout.position[rows, None, :])
        squeezed = torch.log1p(rate * behind.abs()) * behind.sign()
        return squeezed / torch.log1p(rate * torch.maximum(furthest.clamp(min=1), length))

    def flops(self, queries: int, keys: int) -> int:
        return 2 * queries * keys * self.to_heads.numel()
