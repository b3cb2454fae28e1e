"""Predicts each token from those before it.

Radford et al. 2018, https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from blocks.contracts import Cost, Embedding, Head, Init, Layout, Memory, Model, Site, Stack, State
from blocks.model._whole import check_capacity, check_length, check_sizes, depth_of, join, start, total
from registry import Factory, register
from registry.errors import Refusals


@register("model/decoder_only", embedding="embedding/token", head="head/linear", init="init/gpt2")
class DecoderOnly(Model):
    """An embedding, a stack that hides the future, and a head.

    Args:
        d_model: Width of the stream.
        max_length: The most tokens that a row may have.
        tie: Whether the head shares the embedding's table.
        embedding: Tokens to stream.
        decoder: The stack.
        head: Stream to logits.
        init: How the parameters start.

    Raises:
        ValueError: A part refuses to be built; all reasons are given.
    """

    prefers: ClassVar[dict[str, Any]] = {"objective": "next_token"}

    def __init__(
        self,
        vocab_size: int,
        /,
        *,
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
        site = Site(causal=True, max_length=max_length, decoder_layers=depth_of(decoder))
        parts = Refusals()
        self.embedding = parts.build(embedding, vocab_size, d_model)
        self.decoder = parts.build(decoder, d_model, site)
        self.head = parts.build(head, vocab_size, d_model)
        parts.judge()
        join(self.head, self.embedding, tie)
        start(self, init)

    def features(
        self, tokens: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        check_length(tokens, self.max_length)
        return self.decoder(self.embedding(tokens, layout), layout, state, memory)

    def empty_state(self, rows: int, capacity: int) -> State:
        check_capacity(capacity, self.max_length)
        return self.decoder.empty_state(rows, capacity)

    def cost(self, length: int) -> Cost:
        return total(self, *(part.cost(length) for part in (self.embedding, self.decoder, self.head)))
