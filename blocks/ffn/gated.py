"""One projection of each token gates another, and a third brings the product back.

One block, four names in the literature, by what the gate goes through: sigmoid is GLU, ReLU ReGLU,
GELU GEGLU and SiLU SwiGLU.

Dauphin et al. 2016, https://arxiv.org/abs/1612.08083
Shazeer 2020, https://arxiv.org/abs/2002.05202
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Cost, Ffn, Layout, State, declare
from blocks.ffn._activation import Activation, activation_named, width
from registry import register


@register("ffn/glu", activation="sigmoid")
@register("ffn/reglu", activation="relu")
@register("ffn/geglu", activation="gelu")
@register("ffn/swiglu")
class Gated(Ffn):
    """Widens each token twice, multiplies one by the activation of the other, and brings it back.

    Args:
        d_ff: Width between. None: 8 / 3 of ``d_model``, up to a multiple of 8, so the size is an mlp's.
        activation: What the gate goes through.
        bias: Whether the projections add a bias.
        dropout: Probability of dropping a hidden feature while training.

    Raises:
        ValueError: ``d_ff`` is not positive, or no activation has that name.
    """

    def __init__(
        self,
        d_model: int,
        /,
        *,
        d_ff: int | None = None,
        activation: Activation = "silu",
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model)
        d_ff = width(d_ff, -(-d_model // 3) * 8)
        self.activation = activation_named(activation)
        self.to_gate = nn.Linear(d_model, d_ff, bias=bias)
        self.to_hidden = nn.Linear(d_model, d_ff, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(d_ff, d_model, bias=bias), weight="writer")

    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> tuple[Tensor, State | None]:
        hidden = self.activation(self.to_gate(x)) * self.to_hidden(x)  # (B, T, F)
        return self.to_out(self.dropout(hidden)), state

    def cost(self, length: int) -> Cost:
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, 0, steps=1)
