"""The factorised table: the product of a narrow table and a projection."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.embedding.factorised import FactorisedEmbedding


def test_is_the_table_that_its_factors_make():
    embedding = FactorisedEmbedding(7, 16, d_embedding=3)
    table = embedding.table.weight @ embedding.to_stream.weight.T  # (V, D)
    tokens, x = torch.tensor([[3, 0, 3]]), torch.randn(2, 16)
    assert_close(embedding(tokens, Layout.full(1, 3)), table[tokens])
    assert_close(embedding.unembed(x), x @ table.T)


def test_is_smaller_than_a_table_of_full_width():
    assert sum(p.numel() for p in FactorisedEmbedding(1000, 64, d_embedding=8).parameters()) == 8 * 1000 + 8 * 64


def test_refuses_a_width_that_is_not_positive():
    with pytest.raises(ValueError, match=r"^d_embedding must be positive, but got 0\.$"):
        FactorisedEmbedding(7, 16, d_embedding=0)
