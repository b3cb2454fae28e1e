"""Sparse patterns in rows of several documents, or of padding: each document is cut as if it had a row of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.contracts import PAD, Layout


class DocumentBlocks(NamedTuple):
    """How to cut rows of T tokens into n blocks of ``size`` queries, none of two documents, and their keys.

    place: (B, T) int64, where each token stands in the blocks of its row; n size at padding.
    token: (B, n size) int64, the token that stands there; T where none does.
    reads: (B, n, m) int64, the blocks that each one reads; n where it reads fewer than m.
    """

    size: int
    place: Tensor
    token: Tensor
    reads: Tensor

    @classmethod
    def of(cls, layout: Layout, size: int, table: Tensor) -> DocumentBlocks:
        """``table``: (longest, m) int64, the blocks of a document that each one reads; PAD for none."""
        B, T = layout.position.shape
        longest = len(table)
        none = torch.iinfo(torch.long).max
        block = (layout.document * longest + layout.position // size).masked_fill(~layout.real, none)  # (B, T)
        ordered, order = block.sort(dim=1, stable=True)
        first = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True) & (ordered != none)
        rank = first.long().cumsum(1) - 1
        n = int(rank.max()) + 1
        names = block.new_full((B, n + 1), none).scatter(1, torch.where(first, rank, n), ordered)
        names = torch.cat([names[:, :n], names.new_full((B, 1), none)], dim=1)  # what else went to n is no block

        rank = torch.zeros_like(rank).scatter(1, order, rank)
        place = torch.where(layout.real, rank * size + layout.position % size, n * size)
        index = torch.arange(T, device=place.device).expand(B, T)
        token = place.new_full((B, n * size + 1), T).scatter(1, place, index)[:, :-1]

        own = names[:, :n].masked_fill(names[:, :n] == none, 0)
        wanted = own[..., None] // longest * longest + table[own % longest]  # (B, n, m)
        found = torch.searchsorted(names, wanted.flatten(1)).view_as(wanted)
        there = names.gather(1, found.flatten(1)).view_as(wanted) == wanted
        asked = (table[own % longest] != PAD) & (names[:, :n, None] != none)
        return cls(size, place, token, torch.where(there & asked, found, n))

    @property
    def pairs(self) -> int:
        """Products of a query and a key that are computed in a row."""
        return self.reads[0].numel() * self.size**2

    def queries(self, x: Tensor, fill: float = 0) -> Tensor:
        """(B, T, ...) -> (B n, size, ...)"""
        return take(x, self.token, fill).unflatten(1, (-1, self.size)).flatten(0, 1)

    def keys(self, x: Tensor, fill: float = 0) -> Tensor:
        """(B, T, ...) -> (B n, m size, ...)"""
        n, m = self.reads.shape[1:]
        token = F.pad(self.token.unflatten(1, (n, self.size)), (0, 0, 0, 1), value=x.shape[1])  # (B, n + 1, size)
        token = token.gather(1, self.reads.flatten(1)[..., None].expand(-1, -1, self.size))  # (B, n m, size)
        return take(x, token.flatten(1), fill).unflatten(1, (n, m * self.size)).flatten(0, 1)

    def join(self, x: Tensor) -> Tensor:
        """(B n, size, ...) -> (B, T, ...), zero at padding"""
        return take(x.unflatten(0, (len(self.place), -1)).flatten(1, 2), self.place)


def take(x: Tensor, index: Tensor, fill: float = 0) -> Tensor:
    """Of each row the tokens at ``index``; ``fill`` for the one behind the last. (B, T, ...), (B, N) -> (B, N, ...)"""
    x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, 1), value=fill)
    row = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (row + index).flatten()).unflatten(0, index.shape)  # faster than gather


def put(x: Tensor, index: Tensor, new: Tensor) -> Tensor:
    """``x`` with ``new`` at ``index``; what goes behind the last is dropped. (B, T, ...), (B, N), (B, N, ...)"""
    index = index.reshape(*index.shape, *(1,) * (x.ndim - 2)).expand_as(new)
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, 1)).scatter(1, index, new)[:, :-1]
