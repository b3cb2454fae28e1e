"""How wide a hidden state is."""

from __future__ import annotations


def width_of(d_hidden: int | None, d_model: int) -> int:
    """``d_hidden``, or the width of the stream where nobody chose.

    Raises:
        ValueError: There would be no hidden feature.
    """
    width = d_model if d_hidden is None else d_hidden
    if width < 1:
        raise ValueError(f"d_hidden must be at least 1, but got {width}.")
    return width
