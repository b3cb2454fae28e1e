"""No feed-forward: the layer has no such sublayer, and so no residual around it either."""

from __future__ import annotations

from registry import register


@register("ffn/none")
def no_ffn(d_model: int, /) -> None:
    """Leaves the sublayer out: a layer of this is mixing only."""
