"""Several positions at once: each does its part, and biases add up."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from blocks.contracts import AttentionPosition, Layout, Mask
from registry import Factory, register


@register("position/sum", parts=["rope", "t5"])
class Sum(AttentionPosition):
    """Rotates by every part in turn and adds the biases of all (written ``position=[rope, alibi]``).

    Args:
        parts: The positions that act inside attention; those of a stack's foot are added there.

    Raises:
        ValueError: There are no parts; one acts at the foot of a stack; two turn different pairs of channels.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, parts: list[Factory[AttentionPosition]]) -> None:
        super().__init__(n_heads, head_dim)
        if not parts:
            raise ValueError("parts must name at least one position, but got none.")
        built = [part(n_heads, head_dim) for part in parts]
        for part in built:
            if not isinstance(part, AttentionPosition):
                kind = type(part).__name__
                raise ValueError(f"parts must act inside attention, but got {kind}, which acts at the foot of a stack.")
        turning = [part for part in built if "rotate" in part.acts]
        if len({getattr(part, "planes", part) for part in turning}) > 1:
            names = " and ".join(type(part).__name__ for part in turning)
            raise ValueError(
                "rotations of one sum must turn the same pairs of channels, or products no longer depend on "
                f"distance, but got {names} with different ones."
            )
        self.parts = nn.ModuleList(built)
        self.relative = all(part.relative for part in built)
        self.needs_trees = any(part.needs_trees for part in built)

    @property
    def acts(self) -> frozenset[str]:
        return frozenset().union(*(part.acts for part in self._parts))

    def admit(self, mask: Mask) -> None:
        for part in self._parts:
            part.admit(mask)

    def rotate(self, x: Tensor, layout: Layout, role: Literal["query", "key"]) -> Tensor:
        for part in self._parts:
            x = part.rotate(x, layout, role)
        return x

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor | None:
        return _total([part.bias(q, k, q_layout, k_layout) for part in self._parts])

    def value_bias(self, p: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor | None:
        return _total([part.value_bias(p, q_layout, k_layout) for part in self._parts])

    def flops(self, queries: int, keys: int) -> int:
        return sum(part.flops(queries, keys) for part in self._parts)

    def steps(self, keys: int) -> int:
        return sum(part.steps(keys) for part in self._parts)

    @property
    def _parts(self) -> list[AttentionPosition]:
        return list(self.parts)  # type: ignore[arg-type]


def _total(terms: list[Tensor | None]) -> Tensor | None:
    there = [term for term in terms if term is not None]
    return sum(there[1:], start=there[0]) if there else None
