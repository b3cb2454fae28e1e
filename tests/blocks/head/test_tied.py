"""The tied head: whatever embeds a token scores it."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import IGNORE, Layout
from blocks.embedding.factorised import FactorisedEmbedding
from blocks.embedding.token import TokenEmbedding
from blocks.head import _cross_entropy
from blocks.head.tied import TiedHead

B, T, D, V = 3, 7, 16, 11


@pytest.mark.parametrize("embedding", [TokenEmbedding, partial(FactorisedEmbedding, d_embedding=3)])
@pytest.mark.parametrize("pieces", ["at once", "in pieces"])
def test_loss_is_the_cross_entropy_of_the_embeddings_scores(embedding, pieces, monkeypatch):
    if pieces == "in pieces":
        monkeypatch.setattr(_cross_entropy, "LOGITS", 4 * V)
        monkeypatch.setattr(_cross_entropy, "FEWEST", 1)
    head, table = TiedHead(V, D, scale="root", bias=True).double(), embedding(V, D).double()
    head.tie(table)
    torch.nn.init.normal_(head.bias)
    x, layout = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True), Layout.full(B, T)
    targets = torch.randint(0, V, (B, T)).masked_fill(torch.rand(B, T) > 0.7, IGNORE)

    logits = table.unembed(x / 4.0) + head.bias
    assert_close(head(x, layout), logits)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    loss = head.loss(x, layout, targets)
    assert_close(loss, expected)
    inputs = [x, *head.parameters()]
    for got, want in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert_close(got, want)


def test_where_nothing_is_asked_the_loss_is_zero():
    head, x = TiedHead(V, D), torch.randn(B, T, D, requires_grad=True)
    head.tie(TokenEmbedding(V, D))
    loss = head.loss(x, Layout.full(B, T), torch.full((B, T), IGNORE))
    loss.backward()
    assert loss == 0.0
    assert not x.grad.any()


def test_refuses_to_stand_alone():
    message = (
        r"^head must be tied to an embedding for TiedHead, which has no table of its own, but got model\.tie=false\. "
        r"Set model\.tie=true, or choose head=linear\.$"
    )
    with pytest.raises(ValueError, match=message):
        TiedHead(V, D).stand_alone()


def test_refuses_another_scale():
    with pytest.raises(ValueError, match=r"^scale must be none or root, but got 'sqrt'\.$"):
        TiedHead(V, D, scale="sqrt")
