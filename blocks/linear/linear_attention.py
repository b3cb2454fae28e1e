"""Attention with a kernel in place of the softmax: the keys and values of the past are kept as one matrix.

Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236
Shen et al. 2018, https://arxiv.org/abs/1812.01243
Kasai et al. 2021, https://arxiv.org/abs/2103.13076
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.contracts import Cost, Layout, Mask, Memory, Mixer, Path, State
from blocks.linear._chunked import Outer, empty_sum, require_causal, require_plain
from blocks.linear._cost import mean_cost, scan_path
from blocks.linear._normalised import Peaked, exponential_mean, peak_rounds, weighted_mean
from registry import register

Feature = Literal["elu", "relu", "relu2", "softmax", "exp"]

FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": lambda x: F.relu(x) + x.clamp(max=0).exp(),  # elu(x) + 1; the backward of F.elu can not be compiled here
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "softmax": lambda x: x.softmax(-1),
}


@register("linear/linear_attention")
class LinearAttention(Mixer[State]):
    """Each query reads the mean of the values, weighted by how its features meet those of their keys.

    Under a full mask it is the mean over the whole document.

    Args:
        n_heads: Heads; divides ``d_model``.
        feature: What makes queries and keys positive: elu(x) + 1, relu, its square, a softmax over the head, or exp.

    Raises:
        ValueError: ``n_heads`` does not divide ``d_model``; no such feature; the mask leaves single tokens out.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, n_heads: int = 8, feature: Feature = "elu") -> None:
        super().__init__(d_model, mask)
        require_plain(mask, "linear attention")
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")
        if feature not in get_args(Feature):
            raise ValueError(f"feature must be one of {', '.join(get_args(Feature))}, but got {feature!r}.")
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.feature = feature
        self.to_q = nn.Linear(d_model, d_model, bias=False)
        self.to_k = nn.Linear(d_model, d_model, bias=False)
        self.to_v = nn.Linear(d_model, d_model, bias=False)
        self.to_out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        q, k, v = (to(x).unflatten(-1, (self.n_heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        if self.feature == "exp":
            y, state = exponential_mean(q, k, v, layout, cast(Peaked | None, state), causal=self.mask.causal)
        else:
            phi = FEATURES[self.feature]
            s = None if state is None else cast(Outer, state).s
            y, s = weighted_mean(phi(q), phi(k), v, layout, s, causal=self.mask.causal)
            state = None if s is None else Outer(s)
        return self.to_out(y.flatten(2).to(x.dtype)), state

    def empty_state(self, rows: int, capacity: int) -> State:
        require_causal(self.mask, "linear attention")
        s = empty_sum(self.to_out.weight, rows, self.n_heads, self.head_dim, self.head_dim + 1)
        return Peaked(s, s.new_full((rows, self.n_heads), float("-inf"))) if self.feature == "exp" else Outer(s)

    def cost(self, length: int) -> Cost:
        cost = mean_cost(self, length, self.n_heads, self.head_dim, self.head_dim)
        return cost._replace(steps=cost.steps + peak_rounds(length)) if self.feature == "exp" else cost

    def path(self, distance: int, length: int) -> Path:
        return scan_path(self, distance)
