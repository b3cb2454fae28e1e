"""The linear head: its loss is torch's cross-entropy, in pieces too, and its table can be the embedding's."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import IGNORE, Layout
from blocks.embedding.factorised import FactorisedEmbedding
from blocks.embedding.token import TokenEmbedding
from blocks.head import _cross_entropy
from blocks.head.linear import LinearHead

B, T, D, V = 3, 7, 6, 11


@pytest.fixture(params=["at once", "in pieces"])
def pieces(request, monkeypatch):
    if request.param == "in pieces":
        monkeypatch.setattr(_cross_entropy, "LOGITS", 4 * V)
        monkeypatch.setattr(_cross_entropy, "FEWEST", 1)


def _case(dtype=torch.float64, asked=0.5, bias=True):
    head = LinearHead(V, D, bias=bias).to(dtype)
    x = torch.randn(B, T, D, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, V, (B, T)).masked_fill(torch.rand(B, T) > asked, IGNORE)
    return head, x, Layout.full(B, T), targets


def _gradients(head, x, loss):
    return torch.autograd.grad(3.0 * loss, [x, *head.parameters()])


@pytest.mark.parametrize("asked", [1.0, 0.4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("pieces")
def test_loss_is_the_cross_entropy_of_the_logits_forward_and_backward(asked, bias):
    head, x, layout, targets = _case(asked=asked, bias=bias)
    expected = F.cross_entropy(head(x, layout).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    loss = head.loss(x, layout, targets)
    assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for got, want in zip(_gradients(head, x, loss), _gradients(head, x, expected), strict=True):
        assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("pieces")
def test_where_nothing_is_asked_the_loss_is_zero_and_teaches_nothing():
    head, x, layout, targets = _case()
    loss = head.loss(x, layout, torch.full_like(targets, IGNORE))
    assert loss == 0.0
    assert not any(g.any() for g in _gradients(head, x, loss))


def test_only_the_logits_that_are_asked_for_are_made(monkeypatch):
    head, x, layout, targets = _case(asked=0.3)
    rows = []
    softmax = F.log_softmax
    monkeypatch.setattr(F, "log_softmax", lambda t, **k: (rows.append(len(t)), softmax(t, **k))[1])
    head.loss(x, layout, targets)
    assert rows == [(targets != IGNORE).sum().item()]


@pytest.mark.usefixtures("pieces")
def test_never_more_logits_at_once_than_a_piece(monkeypatch):
    head, x, layout, targets = _case(asked=1.0)
    sizes = []
    softmax = F.log_softmax
    monkeypatch.setattr(F, "log_softmax", lambda t, **k: (sizes.append(t.numel()), softmax(t, **k))[1])
    head.loss(x, layout, targets)
    assert max(sizes) <= max(_cross_entropy.LOGITS, _cross_entropy.FEWEST * V)
    assert sum(sizes) == B * T * V


def test_bfloat16_sums_in_float32():
    head, x, layout, targets = _case(torch.bfloat16, asked=1.0)
    loss = head.loss(x, layout, targets)
    assert loss.dtype == torch.float32
    exact, exact_x = LinearHead(V, D, bias=True).double(), x.detach().double().requires_grad_()
    exact.load_state_dict(head.state_dict())
    want = exact.loss(exact_x, layout, targets)
    assert abs(loss - want) < 0.01
    for got, right in zip(_gradients(head, x, loss), _gradients(exact, exact_x, want), strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.double() - right).norm() < 0.02 * right.norm()


def test_autocast_rounds_the_product_but_not_the_sum():
    head, x, layout, targets = _case(torch.float32, asked=1.0)
    exact = head.loss(x, layout, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.loss(x, layout, targets)
    assert loss.dtype == torch.float32
    assert 0 < abs(loss - exact) < 0.02
    assert all(g.dtype == torch.float32 for g in _gradients(head, x, loss))


def test_without_gradients_none_are_made():
    head, x, layout, targets = _case()
    with torch.no_grad():
        loss = head.loss(x, layout, targets)
    assert loss.grad_fn is None
    assert_close(loss, head.loss(x, layout, targets).detach())


def test_a_tied_head_scores_by_the_embedding():
    head, embedding = LinearHead(V, D), TokenEmbedding(V, D)
    head.tie(embedding)
    assert head.to_logits.weight is embedding.table.weight
    x = torch.randn(B, T, D)
    assert_close(head(x, Layout.full(B, T)), embedding.unembed(x))


def test_refuses_a_table_of_another_shape():
    message = (
        r"^a tied table must have the shape \(11, 6\), but got \(11, 3\) from FactorisedEmbedding\. "
        r"Set model\.tie=false, or choose head=tied\.$"
    )
    with pytest.raises(ValueError, match=message):
        LinearHead(V, D).tie(FactorisedEmbedding(V, D, d_embedding=3))
