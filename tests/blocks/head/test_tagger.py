"""The tagger: a tag for each token, padding not asked."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.contracts import IGNORE, Layout
from blocks.embedding.token import TokenEmbedding
from blocks.head.tagger import Tagger


def test_scores_each_token_and_averages_over_those_with_a_tag():
    head, x, layout = Tagger(50, 8, n_tags=5), torch.randn(2, 4, 8), Layout.full(2, 4)
    logits = head(x, layout)
    assert_close(logits, x @ head.to_logits.weight.T + head.to_logits.bias)
    targets = torch.tensor([[0, 4, IGNORE, 1], [IGNORE, IGNORE, 2, 2]])
    expected = F.cross_entropy(logits[targets != IGNORE], targets[targets != IGNORE])
    assert_close(head.loss(x, layout, targets), expected)


def test_refuses_a_single_tag_and_a_shared_table():
    with pytest.raises(ValueError, match=r"^n_tags must be at least 2, but got 1\.$"):
        Tagger(50, 8, n_tags=1)
    message = r"^Tagger must not be tied: it has no table to share\. Set model\.tie=false\.$"
    with pytest.raises(ValueError, match=message):
        Tagger(50, 8).tie(TokenEmbedding(50, 8))
