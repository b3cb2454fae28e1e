"""A document is cut into chunks, and a token sees its own chunk.

Meta 2025 (the local layers of Llama 4), https://ai.meta.com/blog/llama-4-multimodal-intelligence/
"""

from __future__ import annotations

import torch
from torch import Tensor

from blocks.contracts import Layout, Mask
from blocks.functional import Pattern
from registry import register


@register("mask/chunked")
class Chunked(Mask):
    """A token sees its own chunk of ``size`` tokens: up to itself, or all of it.

    Args:
        size: Tokens in a chunk.

    Raises:
        ValueError: ``size`` is less than 1.
    """

    window: int
    blocks: Pattern

    def __init__(self, causal: bool, /, *, size: int = 64) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")
        super().__init__(causal)
        self.window = size
        whole = size * -(-32 // size)  # small chunks are read several at a time
        self.blocks = Pattern(whole, lambda n: torch.arange(n)[:, None])

    def sees(self, q: Layout, k: Layout) -> Tensor:
        return q.position // self.window == k.position // self.window
