"""Reads a source both ways, and writes a target token by token.

Sutskever et al. 2014, https://arxiv.org/abs/1409.3215
Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from blocks.contracts import Cost, Embedding, Head, Init, Layout, Memory, Model, Site, Stack, State
from blocks.model._whole import check_capacity, check_length, check_sizes, depth_of, join, start, total
from registry import Factory, register
from registry.errors import Refusals


@register("model/encoder_decoder", embedding="embedding/token", head="head/linear", init="init/gpt2")
class EncoderDecoder(Model):
    """A stack that reads the source, and one that writes the target and reads the first's output.

    Source and target share one embedding.

    Args:
        d_model: Width of the stream.
        max_length: The most tokens that a row of the source or of the target may have.
        tie: Whether the head shares the embedding's table.
        embedding: Tokens to stream.
        encoder: The stack that reads the source.
        decoder: The stack that writes the target.
        head: Stream to logits.
        init: How the parameters start.

    Raises:
        ValueError: A part refuses to be built; all reasons are given.
    """

    prefers: ClassVar[dict[str, Any]] = {"objective": {"text": "span_corruption", "pairs": "next_token"}}

    def __init__(
        self,
        vocab_size: int,
        /,
        *,
        encoder: Factory[Stack[Any]],
        decoder: Factory[Stack[Any]],
        embedding: Factory[Embedding],
        head: Factory[Head],
        init: Factory[Init],
        d_model: int = 256,
        max_length: int = 256,
        tie: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(d_model, max_length)
        self.max_length = max_length
        site = partial(Site, max_length=max_length, encoder_layers=depth_of(encoder), decoder_layers=depth_of(decoder))
        parts = Refusals()
        self.embedding = parts.build(embedding, vocab_size, d_model)
        self.encoder = parts.build(encoder, d_model, site(causal=False))
        self.decoder = parts.build(decoder, d_model, site(causal=True, reads_memory=True))
        self.head = parts.build(head, vocab_size, d_model)
        parts.judge()
        join(self.head, self.embedding, tie)
        start(self, init)

    def encode(self, source: Tensor, layout: Layout) -> Memory:
        """What the decoder reads. (B, S) int64 -> (B, S, D) and its layout"""
        check_length(source, self.max_length)
        x, _ = self.encoder(self.embedding(source, layout), layout)
        return Memory(x, layout)

    def features(
        self, tokens: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        check_length(tokens, self.max_length)
        return self.decoder(self.embedding(tokens, layout), layout, state, memory)

    def empty_state(self, rows: int, capacity: int) -> State:
        check_capacity(capacity, self.max_length)
        return self.decoder.empty_state(rows, capacity)

    def cost(self, length: int, memory: int | None = None) -> Cost:
        """What one row of ``length`` tokens costs that reads a source of ``memory`` tokens (None: as many)."""
        source = length if memory is None else memory
        read = self.embedding.cost(source), self.encoder.cost(source)
        return total(
            self, *read, self.embedding.cost(length), self.decoder.cost(length, source), self.head.cost(length)
        )
