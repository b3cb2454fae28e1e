"""Models under test: small real stacks."""

from functools import partial

import pytest

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.embedding.token import TokenEmbedding
from blocks.ffn.mlp import Mlp
from blocks.head.linear import LinearHead
from blocks.init.gpt2 import Gpt2
from blocks.layer.sequential import Sequential
from blocks.mask.causal import Causal
from blocks.mask.full import Full
from blocks.norm.layer import LayerNorm
from blocks.residual.pre_norm import PreNorm
from blocks.stack.plain import Layers

V, D = 13, 16


@pytest.fixture
def layer():
    return partial(
        Sequential,
        mixer=partial(GroupedQueryAttention, n_heads=2),
        ffn=partial(Mlp, d_ff=24),
        residual=partial(PreNorm, norm=LayerNorm),
    )


@pytest.fixture
def encoder(layer):
    return partial(Layers, layers=[partial(layer, mask=Full)] * 3, norm=LayerNorm)


@pytest.fixture
def decoder(layer):
    return partial(Layers, layers=[partial(layer, mask=Causal)] * 2, norm=LayerNorm)


@pytest.fixture
def reader(layer):
    """A decoder that reads a memory."""
    cross = partial(GroupedQueryAttention, n_heads=2)
    return partial(Layers, layers=[partial(layer, mask=Causal, cross_attention=cross)] * 2, norm=LayerNorm)


@pytest.fixture
def ends():
    return {"embedding": TokenEmbedding, "head": LinearHead, "init": Gpt2, "d_model": D, "max_length": 8}
