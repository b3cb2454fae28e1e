"""A decoder with a source to read, so that the laws of mixers can judge it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from blocks.contracts import Cost, Layout, Memory, Mixer, Path
from blocks.laws.trying import D, beside, draw, full

DOCUMENTS = 3
"""How many documents a law packs into one row at most."""


class Reader(Mixer[Any]):
    """A decoder and a source that it reads: a mixer like any other, so that every law can judge it.

    Whatever rows a law takes out and whatever documents it packs, each reads the same source, and goes on reading
    it; that each reads its own is said by the laws of a memory.
    """

    source: Tensor  # (1, DOCUMENTS * S, D)
    position: Tensor  # (1, DOCUMENTS * S), as the next two
    document: Tensor
    heads: Tensor

    def __init__(self, decoder: Mixer[Any], length: int = 5) -> None:
        super().__init__(decoder.d_model, decoder.mask)
        self.decoder = decoder
        self.length = length
        layout = beside(*[full(decoder, 1, length)] * DOCUMENTS)
        self.register_buffer("source", draw(decoder, 1, length, D, seed=5).repeat(1, DOCUMENTS, 1), persistent=False)
        for name in ("position", "document", "heads"):
            self.register_buffer(name, getattr(layout, name), persistent=False)

    def forward(self, x: Tensor, layout: Layout, state: Any = None, memory: Memory | None = None) -> tuple[Tensor, Any]:
        return self.decoder(x, layout, state, memory or self._copies(len(x), layout.dense))

    def _copies(self, rows: int, dense: bool) -> Memory:
        """The source in every row: once where the row is one document, else once for each that there may be."""
        length = self.length if dense else self.length * DOCUMENTS
        position, document, heads = (t[:, :length].expand(rows, -1) for t in (self.position, self.document, self.heads))
        return Memory(self.source[:, :length].expand(rows, -1, -1), Layout(position, document, dense, heads))

    def empty_state(self, rows: int, capacity: int) -> Any:
        return self.decoder.empty_state(rows, capacity)

    def cost(self, length: int) -> Cost:
        return self.decoder.cost(length, self.length)  # type: ignore[call-arg]

    def reads(self, length: int) -> Tensor:
        return self.decoder.reads(length)

    def path(self, distance: int, length: int) -> Path:
        return self.decoder.path(distance, length)
