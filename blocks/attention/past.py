"""What softmax attention remembers: a row of slots, written in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.contracts import PAD, Attention, AttentionPosition, Layout, Mask, State


@dataclass(frozen=True, slots=True)
class Past(State):
    """What was kept of each token, and where it sits; the order of the slots means nothing.

    Real tokens take the slots in turn, and when all are taken, that of the oldest: a window needs no more.
    Padding goes to one slot more, at the end, that nobody sees. A memory is kept as it came, without that slot;
    one that has not been read has no slots at all.
    """

    kept: tuple[Tensor, ...]  # each (B, C + 1, ...)
    position: Tensor  # (B, C + 1)
    document: Tensor  # (B, C + 1), PAD where nothing is kept
    count: Tensor  # (B,) real tokens so far
    heads: Tensor | None = None  # (B, C), syntactic heads of a memory's tokens

    @property
    def layout(self) -> Layout:
        """Where the slots' tokens sit."""
        return Layout(self.position, self.document, heads=self.heads)

    @property
    def unread(self) -> bool:
        """This is a memory that has not been read."""
        return self.document.shape[1] == 0

    def hold(self, new: tuple[Tensor, ...], layout: Layout) -> Past:
        """A memory's tokens, once and for all."""
        kept = tuple(t.to(old.dtype) for t, old in zip(new, self.kept, strict=True))
        return Past(kept, layout.position, layout.document, layout.real.sum(1), layout.heads)

    def append(
        self, new: tuple[Tensor, ...], layout: Layout, mask: Mask
    ) -> tuple[tuple[Tensor, ...], Layout | None, Past]:
        """Remember more tokens.

        Returns:
            What the new tokens may look at, where it sits (None: it is the new tokens themselves), and the past
            that now includes them.
        """
        slots, count = self.position.shape[1] - 1, self.count + layout.real.sum(1)
        if layout.dense:  # whole documents: nothing before belongs to them
            seen, where = new, None
            past = self._write(new, layout, count)
        elif layout.position.shape[1] > 1 and mask.window is not None:  # writing would drop what the first ones see
            seen = tuple(torch.cat([old, t.to(old.dtype)], dim=1) for old, t in zip(self.kept, new, strict=True))
            where = Layout(
                torch.cat([self.position, layout.position], dim=1), torch.cat([self.document, layout.document], dim=1)
            )
            past = self._write(new, layout, count)
        else:
            past = self._write(new, layout, count)
            taken = past._taken(slots, mask)
            seen = tuple(t[:, :taken] for t in past.kept)
            where = Layout(past.position[:, :taken], past.document[:, :taken])
        return tuple(t.to(n.dtype) for t, n in zip(seen, new, strict=True)), where, past

    def _write(self, new: tuple[Tensor, ...], layout: Layout, count: Tensor) -> Past:
        slots = self.position.shape[1] - 1
        nth = self.count[:, None] + layout.real.cumsum(1) - 1
        lasting = layout.real & (nth >= count[:, None] - slots)  # of more tokens than slots, the last ones
        slot = torch.where(lasting, nth % slots, slots)  # (B, T)
        row = torch.arange(len(slot), device=slot.device)[:, None]
        for old, t in zip(self.kept, new, strict=True):
            old[row, slot] = t.to(old.dtype)
        self.position[row, slot] = torch.where(lasting, layout.position, PAD)
        self.document[row, slot] = torch.where(lasting, layout.document, PAD)
        return Past(self.kept, self.position, self.document, count)

    def _taken(self, slots: int, mask: Mask) -> int:
        """How many slots to look at. On a CPU the count is at hand; elsewhere asking would wait for the device."""
        if self.count.device.type != "cpu" or torch.compiler.is_compiling() or slots == 0:
            return slots + 1
        most = int(self.count.max())
        if most > slots and mask.window is None:
            raise ValueError(
                f"a state of {slots} tokens must not be given more, but got {most}. Ask for more capacity."
            )
        return min(slots, -(-most // 64) * 64)


def past_bytes(attention: Attention[Past], length: int, memory: int | None, slots: int | None = None) -> int:
    """What the state of one row holds after ``length`` tokens, or of a memory of ``memory`` tokens, in bytes.

    ``slots``: keys that are kept of a memory, where these are not its tokens.
    """
    if memory is None:
        return attention.empty_state(1, length).bytes() if attention.mask.causal else 0
    unread = attention.empty_state(1, 0)
    trees = any(isinstance(part, AttentionPosition) and part.needs_trees for part in attention.modules())
    token = sum(t[0].numel() * t.element_size() for t in (t.new_empty(1, *t.shape[2:]) for t in unread.kept))
    where = (3 if trees else 2) * unread.position.element_size()
    return (memory if slots is None else slots) * (token + where) + unread.count.element_size()


def empty_past(rows: int, capacity: int, mask: Mask, like: Tensor, *shapes: tuple[int, ...]) -> Past:
    """The state before the first of ``capacity`` tokens, of each of which tensors of ``shapes`` are kept.

    Raises:
        ValueError: The mask looks ahead, so that there is no going on from a past.
    """
    if capacity and not mask.causal:
        raise ValueError(
            "mask must be causal for a mixer to go on from a past, "
            f"but got {type(mask).__name__}, whose tokens look ahead."
        )
    slots = 0 if capacity == 0 else 1 + (capacity if mask.window is None else min(capacity, mask.window))
    dtype = like.dtype
    if not like.is_meta and torch.is_autocast_enabled(like.device.type):
        dtype = torch.get_autocast_dtype(like.device.type)
    nowhere = torch.full((rows, slots), PAD, dtype=torch.long, device=like.device)
    kept = tuple(torch.zeros(rows, slots, *shape, dtype=dtype, device=like.device) for shape in shapes)
    return Past(kept, nowhere, nowhere.clone(), torch.zeros(rows, dtype=torch.long, device=like.device))
