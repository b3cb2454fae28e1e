"""Masked tokens: how many are asked for, what stands in their place, what is left alone."""

import numpy as np
import pytest

from blocks.contracts import IGNORE
from training.contracts import Example
from training.objective.masked_token import MaskedToken
from training.tokenizer.byte import Byte

MASK, EOS, BOS, PAD = Byte.mask, Byte.eos, Byte.bos, Byte.pad


def masked_token(shape="encoder", gives="text", **choices) -> MaskedToken:
    return MaskedToken(Byte(), 64, shape, gives, **choices)


def windows(rows: int, length: int) -> tuple[np.ndarray, list[Example]]:
    ids = np.random.default_rng(1).integers(4, 260, (rows, length)).astype(np.uint16)
    return ids, [Example(row) for row in ids]


def test_targets_are_what_stood_there():
    ids, examples = windows(20, 40)
    batch = masked_token().batch(examples, np.random.default_rng(0))
    asked = batch.targets.numpy() != IGNORE
    assert (batch.targets.numpy()[asked] == ids[asked]).all()
    assert (batch.tokens.numpy()[~asked] == ids[~asked]).all()
    assert batch.layout.dense


@pytest.mark.parametrize(("rate", "length", "n"), [(0.15, 40, 6), (0.15, 45, 7), (0.15, 3, 1), (1.0, 10, 10)])
def test_every_row_is_asked_for_its_share(rate: float, length: int, n: int):
    _, examples = windows(30, length)
    batch = masked_token(rate=rate).batch(examples, np.random.default_rng(0))
    assert ((batch.targets != IGNORE).sum(1) == n).all()


def test_every_place_is_asked_for_as_often():
    _, examples = windows(8000, 10)
    batch = masked_token(rate=0.3).batch(examples, np.random.default_rng(0))
    share = (batch.targets != IGNORE).float().mean(0).numpy()
    np.testing.assert_allclose(share, 0.3, atol=0.03)


def test_eight_in_ten_are_masked_one_is_random_one_stays():
    ids, examples = windows(2000, 40)
    batch = masked_token().batch(examples, np.random.default_rng(0))
    asked = batch.targets.numpy() != IGNORE
    put, was = batch.tokens.numpy()[asked], ids[asked]
    masked, same = put == MASK, put == was
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    assert same.mean() == pytest.approx(0.1, abs=0.02)
    others = put[~masked & ~same]
    assert (others.min(), others.max()) == (4, 259)


def test_shares_can_be_chosen():
    ids, examples = windows(50, 40)
    all_masked = masked_token(masked=1.0, random=0.0).batch(examples, np.random.default_rng(0))
    assert (all_masked.tokens[all_masked.targets != IGNORE] == MASK).all()
    left = masked_token(masked=0.0, random=0.0).batch(examples, np.random.default_rng(0))
    assert (left.tokens.numpy() == ids).all()
    assert left.n_targets == 50 * 6


def test_special_tokens_are_never_asked_for():
    objective = masked_token(rate=1.0)
    objective.tokenizer.reserve(1)
    rows = [Example(np.array([EOS, 10, *objective.tokenizer.sentinels, 11])), Example(np.array([EOS] * 4))]
    batch = objective.batch(rows, np.random.default_rng(0))
    assert batch.targets.tolist() == [[IGNORE, 10, IGNORE, 11], [IGNORE] * 4]


def test_documents_are_told_apart():
    example = Example(np.array([10, EOS, 11]), document=np.array([0, 0, 1]))
    batch = masked_token().batch([example], np.random.default_rng(0))
    assert batch.layout.position.tolist() == [[0, 1, 0]]


def test_heads_become_positions_in_their_document():
    tokens, document, heads = [10, 11, EOS, 12, 13, 14], [0, 0, 0, 1, 1, 1], [0, 0, 2, 3, 3, 4]
    packed = Example(np.array(tokens), document=np.array(document), heads=np.array(heads))
    batch = masked_token().batch([packed], np.random.default_rng(0))
    assert batch.layout.heads.tolist() == [[0, 0, 2, 0, 0, 1]]
    batch = masked_token().batch([packed._replace(document=None)], np.random.default_rng(0))
    assert batch.layout.heads.tolist() == [heads]
    assert batch.layout.dense


def test_pairs_are_read_in_one_row():
    pairs = [Example(np.array([20, 21]), np.array([10])), Example(np.array([40]), np.array([30]))]
    batch = masked_token(gives="pairs", rate=1.0, masked=0.0, random=0.0).batch(pairs, np.random.default_rng(0))
    assert batch.tokens.tolist() == [[10, BOS, 20, 21], [30, BOS, 40, PAD]]
    assert batch.targets.tolist() == [[10, IGNORE, 20, 21], [30, IGNORE, 40, IGNORE]]
    assert batch.layout.document.tolist() == [[0] * 4, [0, 0, 0, -1]]


def test_a_generator_says_all():
    _, examples = windows(4, 40)
    one, again, other = (masked_token().batch(examples, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.tokens.equal(again.tokens)
    assert one.targets.equal(again.targets)
    assert not one.targets.equal(other.targets)


@pytest.mark.parametrize(
    ("facts", "choices", "sentence"),
    [
        (
            ("decoder", "text"),
            {},
            "MaskedToken must be asked of an encoder, which reads both ways, but got a model of shape 'decoder'. "
            "Use objective=next_token, or model=encoder_only.",
        ),
        (
            ("encoder_decoder", "text"),
            {},
            "MaskedToken must be asked of an encoder, which reads both ways, but got a model of shape "
            "'encoder_decoder'. Use objective=span_corruption, or model=encoder_only.",
        ),
        (("encoder", "text"), {"rate": 0.0}, "rate must be above 0 and at most 1, but got 0.0."),
        (
            ("encoder", "text"),
            {"masked": 0.9, "random": 0.2},
            "masked and random must be shares that sum to at most 1, but got 0.9 and 0.2.",
        ),
    ],
)
def test_refuses(facts: tuple[str, str], choices: dict, sentence: str):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole sentence is compared)
        masked_token(*facts, **choices)
    assert str(refusal.value) == sentence


def test_has_no_prompts():
    with pytest.raises(ValueError, match=r"^a prompt must be for a model with a decoder, but MaskedToken trains one"):
        masked_token().prompt("text")
