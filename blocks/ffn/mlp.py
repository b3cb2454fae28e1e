"""Two projections with a nonlinearity between them, for each token alone.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.contracts import Cost, Ffn, Layout, State, declare
from blocks.ffn._activation import Activation, activation_named, width
from registry import register


@register("ffn/mlp")
class Mlp(Ffn):
    """Widens each token, bends it, and brings it back.

    Args:
        d_ff: Width between the two projections. None: 4 ``d_model``.
        activation: What bends.
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
        activation: Activation = "gelu",
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model)
        d_ff = width(d_ff, 4 * d_model)
        self.activation = activation_named(activation)
        self.to_hidden = nn.Linear(d_model, d_ff, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.to_out = declare(nn.Linear(d_ff, d_model, bias=bias), weight="writer")

    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> tuple[Tensor, State | None]:
        hidden = self.activation(self.to_hidden(x))  # (B, T, F)
        return self.to_out(self.dropout(hidden)), state

    def cost(self, length: int) -> Cost:
        weights = self.to_hidden.weight.numel() + self.to_out.weight.numel()
        return Cost(sum(p.numel() for p in self.parameters()), 2 * length * weights, 0, steps=1)
