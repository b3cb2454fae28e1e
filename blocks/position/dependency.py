"""Dependency position: how two words are related in the tree of their sentence, instead of how far apart they stand.

Omote et al. 2019 (differences in depth), https://aclanthology.org/R19-1099
Wang et al. 2019 (paths and depths), https://arxiv.org/abs/1909.00383
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from blocks.contracts import AttentionPosition, Layout, Mask, declare
from registry import register


@register("position/dependency")
class Dependency(AttentionPosition):
    """Adds a learned bias for the path from query to key in the dependency tree of their sentence.

    The path climbs ``up`` steps from the query to the first word that both hang on, and goes ``down`` steps from
    there to the key: (0, 0) is the word itself, (1, 0) its head, (0, 1) a dependent, (1, 1) a sibling. The tree is
    what the layout's ``heads`` give (Omote et al. tell pairs by difference in depth, Wang et al. by path and depth).
    Where they give several, a path leads from one to another as if all their roots hung on one word more; a query that
    is not among the keys is a root of its own.

    Args:
        path: What of the path counts: its shape (up, down), or its length up + down.
        reach: Steps at or above this count as this.
        absolute: Whether a key's depth below the root adds a learned bias as well.

    Raises:
        ValueError: ``reach`` is not positive; a mask is causal (the tree of a whole sentence tells the future) or
            local (the path leads through words that it hides). In ``bias``: no tree is known.
    """

    needs_trees = True

    def __init__(
        self,
        n_heads: int,
        head_dim: int,
        /,
        *,
        path: Literal["shape", "length"] = "shape",
        reach: int = 8,
        absolute: Literal["none", "depth"] = "none",
    ) -> None:
        super().__init__(n_heads, head_dim)
        if reach < 1:
            raise ValueError(f"reach must be positive, but got {reach}.")
        self.path = path
        self.reach = reach
        std = (n_heads * head_dim) ** -0.5
        self.paths = nn.Parameter(torch.randn(n_heads, (reach + 1) ** 2 if path == "shape" else reach + 1) * std)
        self.depths = nn.Parameter(torch.randn(n_heads, reach + 1) * std) if absolute == "depth" else None
        declare(self, paths="table", depths="table")

    def admit(self, mask: Mask) -> None:
        if mask.causal:
            raise ValueError(
                f"mask must not be causal for {type(self).__name__}: the tree of a whole sentence tells the future, "
                f"but got {type(mask).__name__}."
            )
        if mask.window is not None or mask.blocks is not None:
            raise ValueError(
                f"mask must let a query see its whole sentence for {type(self).__name__}, whose paths lead anywhere "
                f"in it, but got {type(mask).__name__}."
            )

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor:
        def make() -> tuple[Tensor, Tensor]:
            return self.rows(q_layout, k_layout)

        path, depth = q_layout.once((self, "rows"), make) if k_layout is q_layout else make()
        bias = _look_up(self.paths, path)  # (B, H, T, S)
        return bias if self.depths is None else bias + _look_up(self.depths, depth)[:, :, None]

    def steps(self, keys: int) -> int:
        return 3 * max(1, (keys - 1).bit_length())  # to find ancestors, level two tokens, and climb to where they meet

    def rows(self, q_layout: Layout, k_layout: Layout) -> tuple[Tensor, Tensor]:
        """Of the tables: for the path of each pair (B, T, S), and for the depth of each key (B, S)."""
        tree = Tree.of(k_layout)
        T, S = q_layout.position.shape[1], k_layout.position.shape[1]
        found = (tree.place if k_layout is q_layout else _find(q_layout, k_layout, otherwise=-1))[:, :, None]
        alone = found < 0
        query, key = found.clamp(min=0).expand(-1, T, S), tree.place[:, None, :].expand(-1, T, S)
        meeting = tree.meeting(query, key).masked_fill(alone, -1)
        # Never below 0 in trees; a circle, which no parser should give, must not leave the table either.
        depths = (tree.at(tree.depth, query).masked_fill(alone, 0), tree.at(tree.depth, key))
        up, down = ((depth - meeting).clamp(min=0) for depth in depths)
        if self.path == "shape":
            row = up.clamp(max=self.reach) * (self.reach + 1) + down.clamp(max=self.reach)
        else:
            row = (up + down).clamp(max=self.reach)
        return row, tree.depth.clamp(max=self.reach)


class Tree(NamedTuple):
    """The trees of some rows of tokens. A place is an index into the row; a root is its own head.

    place: (B, S), of each token: 0, 1, ...
    climbs: of each token, the place 1, 2, 4, ... steps up; (B, S) each.
    depth: (B, S), steps up to the root.
    """

    place: Tensor
    climbs: list[Tensor]
    depth: Tensor

    @classmethod
    def of(cls, layout: Layout) -> Tree:
        if layout.heads is None:
            raise ValueError(
                "layout.heads must give the head of every token for positions in trees, but got None. "
                "Choose data that brings trees, or another position."
            )
        S = layout.position.shape[1]
        place = torch.arange(S, device=layout.position.device).expand_as(layout.position)
        climb = _find(layout._replace(position=layout.heads), layout, otherwise=place)
        climbs, depth = [], (climb != place).long()
        for _ in range(max((S - 1).bit_length(), 1)):  # both double until they span the longest chain
            climbs.append(climb)
            depth, climb = depth + depth.gather(1, climb), climb.gather(1, climb)
        return cls(place, climbs, depth)

    def at(self, values: Tensor, place: Tensor) -> Tensor:
        """(B, S), (B, T, S') -> (B, T, S')"""
        return values.gather(1, place.flatten(1)).view_as(place)

    def meeting(self, a: Tensor, b: Tensor) -> Tensor:
        """The depth of the lowest place at or above both, -1 in two trees; in log S steps. (B, T, S)"""
        gap = self.at(self.depth, a) - self.at(self.depth, b)
        for i, climb in enumerate(self.climbs):  # bring the deeper one up to the other's depth
            a = torch.where((gap.clamp(min=0) >> i) % 2 == 1, self.at(climb, a), a)
            b = torch.where((gap.clamp(max=0).neg() >> i) % 2 == 1, self.at(climb, b), b)
        for climb in reversed(self.climbs):  # climb together as long as that keeps them apart
            up_a, up_b = self.at(climb, a), self.at(climb, b)
            a, b = torch.where(up_a != up_b, up_a, a), torch.where(up_a != up_b, up_b, b)
        up_a, up_b = self.at(self.climbs[0], a), self.at(self.climbs[0], b)
        above = torch.where(up_a == up_b, self.at(self.depth, up_a), -1)
        return torch.where(a == b, self.at(self.depth, a), above)


def _find(wanted: Layout, among: Layout, otherwise: Tensor | int) -> Tensor:
    """Places in the second layout's rows that hold the tokens of the first. (B, T), ``otherwise`` if none does."""
    here = wanted.position[:, :, None] == among.position[:, None, :]
    here = here & (wanted.document[:, :, None] == among.document[:, None, :])
    found = here.int().argmax(dim=-1)
    return torch.where(here.any(dim=-1), found, otherwise)


def _look_up(table: Tensor, row: Tensor) -> Tensor:
    """(H, R), (B, ...) -> (B, H, ...)"""
    return table.index_select(1, row.flatten()).unflatten(1, row.shape).transpose(0, 1)
