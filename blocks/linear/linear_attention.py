"""Attention with a kernel in place of the softmax: the keys and values of the past are kept as one matrix.

Katharopoulos et al. 2020 (elu(x) + 1), https://arxiv.org/abs/2006.16236
Kasai et al. 2021 (relu, there behind one more learned map), https://arxiv.org/abs/2103.13076
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State, declare
from blocks.linear._chunked import Outer, empty_sum, require_causal, require_plain
from blocks.linear._cost import mean_cost, scan_path
from blocks.linear._normalised import Peaked, exponential_mean, peak_rounds, weighted_mean
from registry import register

Feature = Literal["elu", "relu", "relu2", "softmax", "exp"]

FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.relu(x) + x.clamp(max=0).exp(),  # elu(x) + 1; the backward of F.elu can not be compiled here
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}

EXPONENTIAL = ("softmax", "exp")
"""Features that are exponentials of all sizes. (Of a query's softmax the divisor cancels, so both are exp there.)"""


@register("linear/linear_attention")
class LinearAttention(Mixer[State]):
    """Each query reads the mean of the values, weighted by how its features meet those of their keys.

    Under a full mask it is the mean over the whole document. ``softmax`` is one over the channels of a head, of queries
    and of keys. (Shen et al. 2018 take that of the keys over the positions, and the mean of each channel by itself.)

    Args:
        n_heads: Heads; divides ``d_model``.
        feature: What makes queries and keys positive: elu(x) + 1, relu, its square, a softmax over the head, or exp.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``; no such feature; the mask leaves single tokens out.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, n_heads: int = 8, feature: Feature = "elu") -> None:
        super().__init__(d_model, mask)
        require_plain(mask, type(self).__name__)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if feature not in get_args(Feature):
            raise ValueError(f"feature must be one of {', '.join(get_args(Feature))}, but got {feature!r}.")
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.feature = feature
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = declare(nn.Linear(d_model, d_model, bias=False), weight="value")
        self.to_out = declare(nn.Linear(d_model, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        q, k, v = (to(x).unflatten(-1, (self.n_heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        if self.feature in EXPONENTIAL:
            past = cast(Peaked | None, state)
            shift = (
                -k.to(torch.promote_types(k.dtype, torch.float32)).logsumexp(-1) if self.feature == "softmax" else None
            )
            y, state = exponential_mean(q, k, v, layout, past, causal=self.mask.causal, shift=shift)
        else:
            s = None if state is None else cast(Outer, state).s
            y, s = weighted_mean(self._of_query(q), FEATURES[self.feature](k), v, layout, s, causal=self.mask.causal)
            state = None if s is None else Outer(s)
        return self.to_out(y.flatten(2).to(x.dtype)), state

    def empty_state(self, rows: int, capacity: int) -> State:
        require_causal(self.mask, type(self).__name__)
        s = empty_sum(self.to_out.weight, rows, self.n_heads, self.head_dim, self.head_dim + 1)
        return Peaked(s, torch.full_like(s[..., 0], -torch.inf)) if self.feature in EXPONENTIAL else Outer(s)

    def cost(self, length: int) -> Cost:
        exponential = self.feature in EXPONENTIAL
        cost = mean_cost(self, length, self.n_heads, self.head_dim, self.head_dim, fades=exponential)
        return cost._replace(steps=cost.steps + peak_rounds(length)) if exponential else cost

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)

    def _of_query(self, q: Tensor) -> Tensor:
        """The features of queries, without a factor that all of them share: a mean does not depend on it."""
        if self.feature == "elu":  # below zero it is an exponential
            q = q - q.detach().amax(-1, keepdim=True).clamp(max=0)
        features = FEATURES[self.feature](q)
        most = features.detach().amax(-1, keepdim=True)
        return features / torch.where(most > 0, most, 1.0)
