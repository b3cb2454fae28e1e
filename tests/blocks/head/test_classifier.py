"""The classifier: each way to pool against a loop over rows, whatever stands at padding."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import IGNORE, PAD, Layout
from blocks.embedding.token import TokenEmbedding
from blocks.head.classifier import Classifier

B, T, D = 3, 6, 8
LENGTHS = torch.tensor([6, 1, 4])


def _pooled(head, pool, tokens):
    if pool == "cls":
        return tokens[0]
    if pool == "last":
        return tokens[-1]
    if pool == "mean":
        return sum(tokens) / len(tokens)
    weight = torch.stack([head.to_score.weight[0] @ t for t in tokens]).softmax(0)
    return sum(w * t for w, t in zip(weight, tokens, strict=True))


@pytest.mark.parametrize("pool", ["cls", "mean", "last", "attention"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_matches_a_loop_over_the_real_tokens_of_each_row(pool, side):
    head, x, layout = Classifier(50, D, n_classes=4, pool=pool), torch.randn(B, T, D), Layout.padded(LENGTHS, T, side)
    logits = head(x, layout)
    for b in range(B):
        assert_close(logits[b], head.to_logits(_pooled(head, pool, x[b][layout.real[b]])))


@pytest.mark.parametrize("pool", ["cls", "mean", "last", "attention"])
def test_a_row_of_padding_is_finite_forward_and_backward(pool):
    head, x = Classifier(50, D, pool=pool), torch.randn(1, T, D, requires_grad=True)
    blank = torch.full((1, T), PAD)
    logits = head(x, Layout(blank, blank))
    logits.sum().backward()
    assert x.grad.isfinite().all()
    if pool in ("mean", "attention"):
        assert_close(logits[0], head.to_logits.bias)


def test_loss_is_the_cross_entropy_of_the_rows_with_a_class():
    head, x, layout = Classifier(50, D, n_classes=4), torch.randn(B, T, D), Layout.full(B, T)
    targets = torch.tensor([2, IGNORE, 0])
    expected = F.cross_entropy(head(x, layout), targets, ignore_index=IGNORE)
    assert_close(head.loss(x, layout, targets), expected)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"n_classes": 1}, r"n_classes must be at least 2, but got 1\."),
        ({"pool": "max"}, r"pool must be one of cls, mean, last, attention, but got 'max'\."),
    ],
)
def test_refuses(choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Classifier(50, D, **choices)


def test_refuses_targets_for_tokens():
    message = (
        r"^targets must be one class for each row, \(B,\), for Classifier, but got \(3, 6\)\. "
        r"Choose head=linear or head=tagger for an objective that asks about tokens\.$"
    )
    with pytest.raises(ValueError, match=message):
        Classifier(50, D).loss(torch.randn(B, T, D), Layout.full(B, T), torch.zeros(B, T, dtype=torch.long))


def test_refuses_a_shared_table():
    message = r"^Classifier must not be tied: it has no table to share\. Set model\.tie=false\.$"
    with pytest.raises(ValueError, match=message):
        Classifier(50, D).tie(TokenEmbedding(50, D))
