"""Documents of a row apart from each other, for attention that reads a summary of each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from blocks.contracts import PAD, Layout, Mask


class Documents(NamedTuple):
    """The tokens of each document of each row; n documents a row at most.

    member: (B, n, S) bool, which token is in which document.
    rank: (B, S) int64, how many tokens of its document stand before a token; 0 at padding.
    """

    member: Tensor
    rank: Tensor

    @classmethod
    def of(cls, layout: Layout) -> Documents:
        """Told apart once a forward."""
        return layout.once("documents", lambda: cls._tell(layout))

    @classmethod
    def _tell(cls, layout: Layout) -> Documents:
        # How many documents a packed row has is known to the device only; whole documents need not ask.
        n = 1 if layout.dense else max(int(layout.document.max()) + 1, 1)
        member = layout.document[:, None] == torch.arange(n, device=layout.document.device)[:, None]
        far = torch.iinfo(torch.long).max
        first = layout.position[:, None].expand_as(member).masked_fill(~member, far).amin(2)  # (B, n)
        rank = layout.position - first.gather(1, layout.document.clamp(min=0))
        return cls(member, rank.masked_fill(~layout.real, 0))

    def summaries(self, per_document: int, exists: Tensor | None = None) -> Layout:
        """The layout of so many summaries of each document. ``exists``: (B, n, per_document) bool, which are real."""
        B, n, _ = self.member.shape
        document = torch.arange(n, device=self.rank.device)[:, None].expand(B, n, per_document)
        if exists is not None:
            document = document.masked_fill(~exists, PAD)
        document = document.flatten(1)
        return Layout(torch.where(document == PAD, PAD, 0), document)


def refuse_all_but_full(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless ``mask`` shows whole documents: a summary can not be taken apart again."""
    if mask.causal or not mask.plain:
        raise ValueError(
            f"mask must be full for {mixer}, which reads summaries of whole documents, but got {type(mask).__name__}. "
            "Use it in an encoder or as cross-attention."
        )
