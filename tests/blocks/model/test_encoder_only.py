"""The encoder-only model: reads both ways, and can not go on from a past."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.model.encoder_only import EncoderOnly

V = 13
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
LAYOUT = Layout.full(2, 5)


def test_embeds_stacks_and_scores(encoder, ends):
    model = EncoderOnly(V, encoder=encoder, **ends)
    x, _ = model.encoder(model.embedding(TOKENS, LAYOUT), LAYOUT)
    assert_close(model(TOKENS, LAYOUT)[0], x @ model.embedding.table.weight.T)


def test_reads_both_ways(encoder, ends):
    model, other = EncoderOnly(V, encoder=encoder, **ends), TOKENS.clone()
    other[:, -1] = 0
    assert not torch.equal(model(other, LAYOUT)[0][:, 0], model(TOKENS, LAYOUT)[0][:, 0])


def test_has_no_state(encoder, ends):
    with pytest.raises(ValueError, match="causal"):
        EncoderOnly(V, encoder=encoder, **ends).empty_state(1, 4)


def test_a_row_has_at_most_max_length_tokens(encoder, ends):
    with pytest.raises(ValueError, match=r"^a row must have at most max_length = 8 tokens, but got 9\.$"):
        EncoderOnly(V, encoder=encoder, **ends)(torch.zeros(1, 9, dtype=torch.long), Layout.full(1, 9))
