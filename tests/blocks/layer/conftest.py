"""Layers under test: small real parts, the same for every kind of layer."""

from functools import partial

import pytest
import torch

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.contracts import Site
from blocks.ffn.mlp import Mlp
from blocks.mask.causal import Causal
from blocks.norm.layer import LayerNorm
from blocks.position.rope import Rope
from blocks.residual.pre_norm import PreNorm

D = 16


@pytest.fixture
def parts():
    return {
        "mixer": partial(GroupedQueryAttention, n_heads=2),
        "mask": Causal,
        "position": Rope,
        "ffn": partial(Mlp, d_ff=24),
        "residual": partial(PreNorm, norm=LayerNorm),
    }


@pytest.fixture
def site():
    return Site(causal=True, max_length=32)


@pytest.fixture
def reading(site):
    """The site of a decoder's layer that reads an encoder."""
    return Site(causal=True, max_length=32, reads_memory=True)


@pytest.fixture
def cross():
    return partial(GroupedQueryAttention, n_heads=2)


@pytest.fixture
def x():
    return torch.randn(2, 5, D, dtype=torch.float64)
