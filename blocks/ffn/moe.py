"""A mixture of experts: each token is thought about by the few feed-forwards that a router picks for it.

No expert has a capacity, so no token is dropped, and what stands beside a token does not matter to it.

Shazeer et al. 2017, https://arxiv.org/abs/1701.06538
Fedus et al. 2021, https://arxiv.org/abs/2101.03961 (the balance loss)
Dai et al. 2024, https://arxiv.org/abs/2401.06066 (shared experts)
Wang et al. 2024, https://arxiv.org/abs/2408.15664 (balance by a bias)
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.contracts import Cost, Ffn, Layout, State, declare
from registry import Factory, register

ROWS = 8
"""An expert's rows are filled up to a multiple of this: matrix products round whole blocks of rows alike, so
that not even the last bit of a token tells how many others went the same way."""


@register("ffn/moe", expert="ffn/swiglu")
class MixtureOfExperts(Ffn):
    """Sends each token to the experts with the highest scores, and adds what they say by their scores.

    With ``balance=bias`` the experts are picked by score plus a bias that no output depends on; what is
    reported has a gradient for that bias only, and so lowers it where an expert has more than its share.

    Args:
        expert: What an expert is.
        n_experts: How many there are to pick from.
        top_k: How many are picked for a token.
        shared: How many more experts every token goes through.
        balance: What keeps the load even: loss (an auxiliary loss), bias, or none.
        balance_weight: What the auxiliary loss is multiplied by.

    Raises:
        ValueError: ``top_k`` is not between 1 and ``n_experts``, ``shared`` is negative, ``balance`` has no
            such name, or the expert is not a feed-forward that takes each token alone.
    """

    def __init__(
        self,
        d_model: int,
        /,
        *,
        expert: Factory[Ffn],
        n_experts: int = 8,
        top_k: int = 2,
        shared: int = 0,
        balance: Literal["loss", "bias", "none"] = "loss",
        balance_weight: float = 0.01,
    ) -> None:
        super().__init__(d_model)
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k must be between 1 and n_experts, but got {top_k} of {n_experts}.")
        if shared < 0:
            raise ValueError(f"shared must not be negative, but got {shared}.")
        if balance not in ("loss", "bias", "none"):
            raise ValueError(f"balance must be loss, bias or none, but got {balance!r}.")
        self.top_k = top_k
        self.balance = balance
        self.balance_weight = balance_weight
        self.to_scores = nn.Linear(d_model, n_experts, bias=False)
        self.handicap = nn.Parameter(torch.zeros(n_experts)) if balance == "bias" else None
        declare(self, handicap="bias")
        self.experts = nn.ModuleList(_alone(expert(d_model)) for _ in range(n_experts))
        self.shared = nn.ModuleList(_alone(expert(d_model)) for _ in range(shared))

    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> tuple[Tensor, State | None]:
        real = None if layout.dense else layout.real.flatten().nonzero().squeeze(1)
        flat = x.flatten(0, 1)
        tokens = flat if real is None else flat[real]  # (N, D)

        scores = self.to_scores(tokens).softmax(-1, dtype=torch.promote_types(x.dtype, torch.float32))  # (N, E)
        ranked = scores if self.handicap is None else scores + self.handicap
        chosen = ranked.topk(self.top_k).indices  # (N, top_k)
        weight = scores.gather(1, chosen)
        if self.top_k > 1:  # a single weight of 1 would teach the router nothing
            weight = weight / weight.sum(-1, keepdim=True)
        self._report(scores, chosen, layout)

        y = self._ask(tokens, chosen, weight, layout)
        for expert in self.shared:
            y = y + expert(tokens[None], layout)[0][0]
        y = y if real is None else torch.zeros_like(flat, dtype=y.dtype).index_copy(0, real, y)
        return y.view_as(x), state

    def cost(self, length: int) -> Cost:
        each: Cost = self.experts[0].cost(length)  # type: ignore[operator]
        flops = each.flops * (self.top_k + len(self.shared)) + 2 * length * self.to_scores.weight.numel()
        return Cost(sum(p.numel() for p in self.parameters()), flops, 0, steps=2)

    @torch.compiler.disable
    def _ask(self, tokens: Tensor, chosen: Tensor, weight: Tensor, layout: Layout) -> Tensor:
        """Each expert once, on all tokens that were sent to it. (N, D) -> (N, D)"""
        order = chosen.flatten().argsort(stable=True)  # (N top_k,), the first expert's calls first
        y = torch.zeros_like(tokens)
        for expert, calls in zip(self.experts, order.split(self._loads(chosen)), strict=True):
            if len(calls):
                rows = calls // self.top_k
                sent = F.pad(tokens[rows], (0, 0, 0, 0 if tokens.is_meta else -len(rows) % ROWS))
                said = expert(sent[None], layout)[0][0, : len(rows)] * weight.flatten()[calls, None]
                y = y.index_add(0, rows, said.to(y.dtype))
        return y

    def _loads(self, chosen: Tensor) -> list[int]:
        """How many calls each expert gets; a device waits here."""
        count, experts = chosen.numel(), len(self.experts)
        if chosen.is_meta:  # shapes are counted, and nobody knows who goes where: evenly, then
            return [count // experts + (e < count % experts) for e in range(experts)]
        return torch.bincount(chosen.flatten(), minlength=experts).tolist()

    def _report(self, scores: Tensor, chosen: Tensor, layout: Layout) -> None:
        if self.balance == "none" or layout.scratch is None:
            return
        share = F.one_hot(chosen, len(self.experts)).to(scores.dtype).mean((0, 1))  # (E,), sums to 1
        if self.handicap is not None:
            excess = (share - 1 / len(self.experts)).detach()
            loss = (self.handicap * excess).sum()
        else:
            loss = len(self.experts) * (share * scores.mean(0)).sum()  # 1 where the load is even
        layout.report("balance", self.balance_weight * loss)


def _alone(expert: Ffn) -> Ffn:
    if not isinstance(expert, Ffn) or type(expert).empty_state is not Ffn.empty_state:
        raise ValueError(f"expert must be a feed-forward that takes each token alone, but got {type(expert).__name__}.")
    return expert
