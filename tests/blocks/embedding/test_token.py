"""The token table, looked up and scored by."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.embedding.token import TokenEmbedding


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("root", 4.0)])
def test_a_token_is_its_row(scale, factor):
    embedding, tokens = TokenEmbedding(7, 16, scale=scale), torch.tensor([[3, 0, 3]])
    assert_close(embedding(tokens, Layout.full(1, 3)), factor * embedding.table.weight[[3, 0, 3]][None])


@pytest.mark.parametrize("scale", ["none", "root"])
def test_scores_are_dot_products_with_every_row(scale):
    embedding, x = TokenEmbedding(7, 16, scale=scale), torch.randn(2, 16)
    expected = torch.stack([torch.stack([(x[b] * row).sum() for row in embedding.table.weight]) for b in range(2)])
    assert_close(embedding.unembed(x), expected)


def test_refuses_another_scale():
    with pytest.raises(ValueError, match=r"^scale must be none or root, but got 'sqrt'\.$"):
        TokenEmbedding(7, 16, scale="sqrt")
