"""A query and a key are alike as far as they point the same way: their dot product, as it is or scaled.

Luong et al. 2015 (plain), https://arxiv.org/abs/1508.04025
Vaswani et al. 2017 (scaled), https://arxiv.org/abs/1706.03762
Yang et al. 2022 (divided by the width), https://arxiv.org/abs/2203.03466
Henry et al. 2020 (normalised queries and keys), https://arxiv.org/abs/2010.04245
Dehghani et al. 2023 (norms on queries and keys), https://arxiv.org/abs/2302.05442
Gemma Team 2024 (the cap), https://arxiv.org/abs/2408.00118
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from blocks.contracts import Norm, Score
from registry import Factory, register


@register("score/dot", scale=1.0)
@register("score/scaled_dot")
class DotScore(Score):
    """The dot product of query and key, times a scale: 1 (dot) or 1 / sqrt(head_dim) (scaled_dot).

    Args:
        scale: What the dot product is multiplied by. None: it is divided by ``divisor``.
        divisor: What it is divided by: the root of head_dim, or its width head_dim (muP, where heads widen).
        qk_norm: A norm for queries and one for keys, over the channels of a head. None: they stay as they are.
        order: Whether the norm acts before the position rotates, or after.
        cap: Scores bend towards this bound and its negative. None: they may grow as they like.

    Raises:
        ValueError: ``scale`` or ``cap`` is not positive; there is a ``scale``, and ``divisor`` is not root; there is an
            ``order`` of a norm that is not there.
    """

    def __init__(
        self,
        n_heads: int,
        head_dim: int,
        /,
        *,
        scale: float | None = None,
        divisor: Literal["root", "width"] = "root",
        qk_norm: Factory[Norm] | None = None,
        order: Literal["norm_first", "rotate_first"] = "norm_first",
        cap: float | None = None,
    ) -> None:
        super().__init__(n_heads, head_dim)
        for name, value in (("scale", scale), ("cap", cap)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, but got {value}.")
        if divisor == "width" and scale is not None:
            raise ValueError(f"scale must be null where divisor is width, but got {scale}. Set one of them.")
        if order != "norm_first" and qk_norm is None:
            raise ValueError(
                f"order must be 'norm_first' where qk_norm is null and there is no order, but got {order!r}."
            )
        divided = 1 / head_dim if divisor == "width" else self.scale
        self.scale = divided if scale is None else scale
        self.cap = cap
        self.order = order
        self.norm_q = None if qk_norm is None else qk_norm(head_dim)
        self.norm_k = None if qk_norm is None else qk_norm(head_dim)

    def prepare(self, x: Tensor, role: Literal["query", "key"], rotate: Callable[[Tensor], Tensor]) -> Tensor:
        norm = self.norm_q if role == "query" else self.norm_k
        if norm is None:
            return rotate(x)
        return rotate(norm(x)) if self.order == "norm_first" else norm(rotate(x))
