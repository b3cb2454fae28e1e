"""Span corruption: source and target put together are the text, and the holes are as many and as long as they say."""

import numpy as np
import pytest
import torch

from blocks.contracts import IGNORE
from training.contracts import Example
from training.objective.span_corruption import SpanCorruption
from training.tokenizer.byte import Byte

BOS, EOS = Byte.bos, Byte.eos


def spans(shape="encoder_decoder", gives="text", max_length=64, **choices) -> SpanCorruption:
    return SpanCorruption(Byte(), max_length, shape, gives, **choices)


def corrupted(objective: SpanCorruption, rows: int, length: int, seed: int = 0):
    ids = np.random.default_rng(1).integers(4, 260, (rows, length)).astype(np.uint16)
    return ids, objective.batch([Example(row) for row in ids], np.random.default_rng(seed))


def filled(source: list[int], target: list[int], sentinels: range) -> list[int]:
    """The text: each sentinel of the source replaced by what stands behind it in the target."""
    assert source[-1] == target[-1] == EOS
    behind: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels:
            behind[token] = now = []
        else:
            now.append(token)
    return [t for s in source[:-1] for t in (behind.pop(s) if s in sentinels else [s])]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 64])
@pytest.mark.parametrize(("rate", "mean_span"), [(0.15, 3.0), (0.5, 1.0), (0.8, 5.0)])
def test_filling_the_holes_gives_the_text_back(length: int, rate: float, mean_span: float):
    objective = spans(max_length=256, rate=rate, mean_span=mean_span)
    ids, batch = corrupted(objective, 10, length)
    for row, source, target in zip(ids.tolist(), batch.source.tolist(), batch.targets.tolist(), strict=True):
        assert filled(source, target, objective.tokenizer.sentinels) == row


def test_the_decoder_reads_what_it_is_asked_for_one_token_later():
    _, batch = corrupted(spans(), 4, 40)
    assert (batch.tokens[:, 0] == BOS).all()
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    assert batch.layout.dense
    assert batch.source_layout.dense


def test_cuts_the_share_and_the_spans_that_were_asked_for():
    objective = spans(max_length=128)
    _, batch = corrupted(objective, 50, 100)
    holes = torch.isin(batch.source, torch.tensor(objective.tokenizer.sentinels))
    assert (holes.sum(1) == 5).all()  # 15 tokens in spans of 3
    assert batch.source.shape == (50, 100 - 15 + 5 + 1)
    assert batch.targets.shape == (50, 15 + 5 + 1)


def test_sentinels_count_from_the_left():
    objective = spans()
    first = objective.tokenizer.sentinels.start
    _, batch = corrupted(objective, 20, 64)
    for rows in (batch.source, batch.targets):
        for row in rows.tolist():
            marks = [t for t in row if t in objective.tokenizer.sentinels]
            assert marks == [*range(first, first + 3)]


def test_every_place_but_the_first_can_be_cut():
    """A window begins with what is kept and ends in a span."""
    objective = spans(rate=0.3, mean_span=2.0)
    window = [Example(np.arange(100, 112))] * 3000
    batch = objective.batch(window, np.random.default_rng(0))
    share = [(batch.targets == token).any(1).float().mean() for token in range(100, 112)]
    assert (share[0], share[-1]) == (0, 1)
    assert min(share[1:]) > 0.1


def test_spans_are_of_many_lengths():
    objective = spans(rate=0.5, mean_span=3.0)
    _, batch = corrupted(objective, 500, 24)
    found = set()
    for row in batch.targets.tolist():
        marks = [i for i, t in enumerate(row) if t in objective.tokenizer.sentinels]
        found |= {b - a - 1 for a, b in zip(marks, [*marks[1:], len(row) - 1], strict=True)}
    assert found == {*range(1, 10)}  # 12 tokens in 4 spans


@pytest.mark.parametrize("shape", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("rate", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("length", [8, 33, 256])
def test_windows_fill_rows_and_no_more(shape: str, rate: float, length: int):
    objective = spans(shape, max_length=length, rate=rate)
    window = objective.window(length)
    _, batch = corrupted(objective, 2, window)
    longest = max(t.shape[1] for t in (batch.tokens, batch.source) if t is not None)
    assert length - 2 <= longest <= length
    assert longest == objective._longest(window)
    assert all(objective._longest(longer) > length for longer in range(window + 1, 3 * length))
    assert batch.targets.max() < objective.tokenizer.vocab_size


def test_a_decoder_reads_the_source_in_its_row():
    objective = spans("decoder")
    ids, batch = corrupted(objective, 5, 30)
    for row, tokens, targets in zip(ids.tolist(), batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        asked = targets.count(IGNORE)
        assert tokens[asked] == BOS
        assert filled(tokens[:asked], targets[asked:], objective.tokenizer.sentinels) == row


def test_reserves_as_many_sentinels_as_it_needs():
    objective = spans(max_length=256)
    assert objective.tokenizer.n_sentinels == objective._holes(objective.window(256)).n_spans == 14


def test_a_generator_says_all():
    objective = spans()
    one, again, other = (corrupted(objective, 4, 40, seed)[1] for seed in (0, 0, 1))
    assert one.source.equal(again.source)
    assert one.targets.equal(again.targets)
    assert not one.source.equal(other.source)


def test_prompts_have_their_hole_at_the_end():
    a = 4 + ord("a")
    both, decoder = spans(), spans("decoder")
    hole = both.tokenizer.sentinels.start
    prompt = both.prompt("a")
    assert (prompt.tokens.tolist(), prompt.source.tolist()) == ([BOS, hole], [a, hole, EOS])
    assert decoder.prompt("a").tokens.tolist() == [a, hole, EOS, BOS, hole]
    assert decoder.prompt("a").source is None


@pytest.mark.parametrize(
    ("facts", "choices", "sentence"),
    [
        (
            ("encoder", "text"),
            {},
            "SpanCorruption must be asked of a model with a decoder, but got an encoder. "
            "Use objective=masked_token, or model=encoder_decoder.",
        ),
        (
            ("encoder_decoder", "pairs"),
            {},
            "SpanCorruption must have running text, but got data of pairs. Use objective=next_token.",
        ),
        (("encoder_decoder", "text"), {"rate": 1.0}, "rate must be between 0 and 1, but got 1.0."),
        (("encoder_decoder", "text"), {"mean_span": 0.5}, "mean_span must be at least 1 token, but got 0.5."),
        (
            ("encoder_decoder", "text", 2),
            {},
            "length must leave room for a source and its spans, but got 2 tokens.",
        ),
    ],
)
def test_refuses(facts: tuple, choices: dict, sentence: str):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole sentence is compared)
        spans(*facts, **choices)
    assert str(refusal.value) == sentence
