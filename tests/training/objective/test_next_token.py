"""Next token: what each position is asked, in running text and in pairs."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from blocks.contracts import IGNORE
from training.contracts import Example
from training.objective.next_token import NextToken
from training.tokenizer.byte import Byte

PAD, BOS, EOS = Byte.pad, Byte.bos, Byte.eos
RNG = np.random.default_rng(0)


def next_token(shape="decoder", gives="text") -> NextToken:
    return NextToken(Byte(), 16, shape, gives)


def row(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.uint16)


def test_each_token_is_asked_after_those_before_it():
    batch = next_token().batch([Example(row(10, 11, 12, 13)), Example(row(20, 21, 22, 23))], RNG)
    assert batch.tokens.tolist() == [[10, 11, 12], [20, 21, 22]]
    assert batch.targets.tolist() == [[11, 12, 13], [21, 22, 23]]
    assert batch.layout.dense
    assert batch.source is None
    assert batch.n_targets == 6


def test_documents_are_asked_each_by_itself():
    window = Example(row(10, 11, EOS, 20, EOS, 30), document=np.array([0, 0, 0, 1, 1, 2]))
    batch = next_token().batch([window], RNG)
    assert batch.tokens.tolist() == [[10, 11, EOS, 20, EOS]]
    assert batch.targets.tolist() == [[11, EOS, IGNORE, EOS, IGNORE]]
    assert batch.layout.document.tolist() == [[0, 0, 0, 1, 1]]
    assert batch.layout.position.tolist() == [[0, 1, 2, 0, 1]]
    assert not batch.layout.dense
    assert batch.n_targets == 3


def test_a_decoder_reads_the_source_and_is_asked_for_the_target():
    pairs = [Example(row(20, 21), source=row(10, 11, 12)), Example(row(40), source=row(30))]
    batch = next_token(gives="pairs").batch(pairs, RNG)
    assert batch.tokens.tolist() == [[10, 11, 12, BOS, 20, 21], [30, BOS, 40, PAD, PAD, PAD]]
    assert batch.targets.tolist() == [[IGNORE] * 3 + [20, 21, EOS], [IGNORE, 40, EOS] + [IGNORE] * 3]
    assert batch.layout.position.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, -1, -1, -1]]
    assert batch.layout.document.tolist() == [[0] * 6, [0, 0, 0, -1, -1, -1]]
    assert batch.source is None


def test_an_encoder_decoder_reads_the_source_apart():
    pairs = [Example(row(20, 21), source=row(10, 11, 12)), Example(row(40), source=row(30))]
    batch = next_token("encoder_decoder", "pairs").batch(pairs, RNG)
    assert batch.tokens.tolist() == [[BOS, 20, 21], [BOS, 40, PAD]]
    assert batch.targets.tolist() == [[20, 21, EOS], [40, EOS, IGNORE]]
    assert batch.source.tolist() == [[10, 11, 12], [30, PAD, PAD]]
    assert batch.source_layout.position.tolist() == [[0, 1, 2], [0, -1, -1]]
    assert batch.layout.position.tolist() == [[0, 1, 2], [0, 1, -1]]


def test_pairs_of_one_length_need_no_mask():
    pairs = [Example(row(20), source=row(10, 11)), Example(row(40), source=row(30, 31))]
    batch = next_token("encoder_decoder", "pairs").batch(pairs, RNG)
    assert batch.layout.dense
    assert batch.source_layout.dense
    assert next_token(gives="pairs").batch(pairs, RNG).layout.dense


@pytest.mark.parametrize("shape", ["decoder", "encoder_decoder"])
def test_room_is_the_longest_row_of_a_batch(shape: str):
    for n_target, n_source in [(3, 5), (5, 3), (1, 1)]:
        objective = next_token(shape, "pairs")
        batch = objective.batch([Example(row(*range(10, 10 + n_target)), row(*range(10, 10 + n_source)))], RNG)
        longest = max(t.shape[1] for t in (batch.tokens, batch.source) if t is not None)
        assert objective.room(n_target, n_source) == longest


def test_a_window_makes_rows_of_the_length_that_was_asked_for():
    objective = next_token()
    window = objective.window(7)
    assert objective.batch([Example(np.arange(window))], RNG).tokens.shape == (1, 7)


def test_prompts_end_where_the_answer_begins():
    text, ids = "ab", [4 + ord("a"), 4 + ord("b")]
    said = [next_token(*asked).prompt(text) for asked in [(), ("decoder", "pairs"), ("encoder_decoder", "pairs")]]
    assert [p.tokens.tolist() for p in said] == [ids, [*ids, BOS], [BOS]]
    assert [p.source is None or p.source.tolist() for p in said] == [True, True, ids]


def test_the_loss_is_the_cross_entropy_of_the_targets(toy):
    model = toy(260)
    objective = next_token(gives="pairs")
    batch = objective.batch([Example(row(20, 21), source=row(10)), Example(row(40), source=row(30))], RNG)
    loss, log = objective.loss(model, batch)
    logp = F.log_softmax(model.head(model.embedding(batch.tokens)), dim=-1)
    asked = [(0, 1, 20), (0, 2, 21), (0, 3, EOS), (1, 1, 40), (1, 2, EOS)]
    nats = -torch.stack([logp[at] for at in asked]).mean()
    torch.testing.assert_close(log["nats"], nats.detach())
    torch.testing.assert_close(loss, nats + 0.75)
    assert log["balance"] == 0.75
    assert not any(value.requires_grad for value in log.values())
    loss.backward()
    assert model.embedding.weight.grad is not None


def test_what_encoder_and_decoder_report_is_added_up(toy):
    model = toy(260)
    objective = next_token("encoder_decoder", "pairs")
    loss, log = objective.loss(model, objective.batch([Example(row(20), source=row(10))], RNG))
    assert {name: float(log[name]) for name in log if name != "nats"} == {"balance": 1.75, "other": 2.0}
    torch.testing.assert_close(loss.detach(), log["nats"] + 3.75)


def test_two_losses_of_a_batch_do_not_add_up(toy):
    model, objective = toy(260), next_token()
    batch = objective.batch([Example(row(10, 11, 12))], RNG)
    assert objective.loss(model, batch)[0] == objective.loss(model, batch)[0]


def refused(shape: str, gives: str) -> str:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole sentence is compared)
        next_token(shape, gives)
    return str(refusal.value)


def test_refuses_a_model_that_sees_the_answer():
    assert refused("encoder", "text") == (
        "NextToken must be asked of a model that hides the future, but got an encoder, which would see the answer. "
        "Use objective=masked_token, or a model with a decoder."
    )


def test_refuses_an_encoder_with_nothing_to_read():
    assert refused("encoder_decoder", "text") == (
        "NextToken must have a source for the encoder, but got running text, which has none. "
        "Use objective=span_corruption, data of pairs, or a model without an encoder."
    )
