"""Which masks a convolution realises, and where it can go on from a state."""

from __future__ import annotations

from torch import Tensor

from blocks.contracts import Mask


def must_be_plain(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is plainly causal or full."""
    if not mask.plain:
        raise ValueError(
            f"mask must be causal or full for {mixer}, which has its own reach, but got {type(mask).__name__}."
        )


def must_look_back(mask: Mask, mixer: str) -> None:
    """Raises ``ValueError`` unless ``mask`` is causal, as a state needs it to be."""
    if not mask.causal:
        raise ValueError(f"mask must be causal to go on from a state, but this {mixer} reads both ways.")


def near(seen: Tensor, reach: int) -> Tensor:
    """Of what a token sees, what stands ``reach`` tokens away or nearer. (T, T) bool -> (T, T)"""
    return seen.tril(reach).triu(-reach)
