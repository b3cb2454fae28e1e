"""Generated pairs: what is asked, how they vary, what does not fit."""

import math

import pytest
import torch

from registry import factory
from registry.errors import DataError
from training.contracts import Example
from training.data.loader import DRAW, generator
from training.data.pairs import SymbolPairs
from training.objective.next_token import NextToken
from training.tokenizer.byte import Byte
from training.tokenizer.char import Char


def pairs(*, tokenizer=None, max_length: int = 64, seed: int = 0, shape="encoder_decoder", **choices) -> SymbolPairs:
    tokenizer = tokenizer or Byte()
    objective = NextToken(tokenizer, max_length, shape, "pairs")
    return SymbolPairs(tokenizer, objective, max_length, seed, **choices)


def drawn(**choices) -> list[Example]:
    data = pairs(**choices)
    data.setup()
    return data._examples(generator(DRAW, 0, 0, data.seed))


def test_the_target_is_the_source():
    for example in drawn():
        assert example.tokens.tolist() == example.source.tolist()


def test_the_target_is_the_source_from_its_end():
    for example in drawn(order="reversed"):
        assert example.tokens.tolist() == example.source.tolist()[::-1]


@pytest.mark.parametrize("tokenizer", [Byte, Char])
def test_the_prompt_is_a_source_of_the_training_data(tokenizer):
    data = pairs(tokenizer=tokenizer(), symbols=5)
    data.setup()
    sources = [data.tokenizer.decode(e.source) for e in data._examples(generator(DRAW, 0, 0, data.seed))]
    assert data.facts["prompt"] in sources


def test_both_names_are_registered():
    tokenizer = Byte()
    objective = NextToken(tokenizer, 64, "decoder", "pairs")
    made = [factory(name, ("data",))(tokenizer, objective, 64, 0) for name in ("copy", "reverse")]
    assert [data.order for data in made] == ["same", "reversed"]


def test_lengths_and_symbols_take_every_value():
    found = drawn(shortest=2, longest=5, symbols=3, batch_size=500)
    assert {len(e.tokens) for e in found} == {2, 3, 4, 5}
    assert {Byte().decode([i]) for e in found for i in e.tokens} == {"a", "b", "c"}


def test_every_batch_is_new_and_repeats_under_its_seed():
    def seen(seed: int) -> list[list[int]]:
        data = pairs(seed=seed, pairs=64)
        data.setup()
        loader = data.train_dataloader()
        assert len(loader) == 2
        return [batch.source.ravel().tolist() for _ in range(2) for batch in loader]

    one, again, other = seen(0), seen(0), seen(1)
    assert one == again
    assert len({tuple(s) for s in one + other}) == 8


def test_validation_does_not_depend_on_the_seed():
    both = [pairs(seed=seed) for seed in (0, 1)]
    for data in both:
        data.setup()
    for a, b in zip(both[0].val_dataloader(), both[1].val_dataloader(), strict=True):
        assert torch.equal(a.source, b.source)
    assert len(both[0].val_dataloader()) == 16


def test_prompts_are_validation_sources():
    data = pairs(tokenizer=Char())
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert next(data.samples()) == data.tokenizer.decode(batch.source[0])


def test_the_entropy_is_that_of_the_symbols():
    data = pairs(symbols=4, shortest=3, longest=3, batch_size=256, tokenizer=Char())
    data.setup()
    assert data.facts["unigram_entropy"] == pytest.approx(0.75 * math.log(16 / 3) + 0.25 * math.log(4), abs=0.01)
    assert data.facts["val_tokens"] == 256 * 16 * 4
    assert data.facts["bytes_per_token"] == 0.75
    assert data.facts["train_tokens"] == 32_000 * 4
    assert data.facts["source"] == "generated: 3 to 3 of 4 symbols, to be repeated (same order)"


def test_rules_have_fingerprints():
    found = set()
    for choices in ({}, {"order": "reversed"}, {"symbols": 5}, {"longest": 9}):
        data = pairs(**choices)
        data.setup()
        found.add(data.facts["fingerprint"])
    assert len(found) == 4


def test_symbols_that_take_two_tokens_are_refused():
    class Pairwise(Byte):
        def encode(self, text):
            return super().encode(text + text)

    data = pairs(tokenizer=Pairwise(), symbols=2)
    with pytest.raises(DataError) as refusal:
        data.setup()
    assert str(refusal.value) == (
        "every symbol must be one token, but the 2 symbols are 4. Use tokenizer=byte or tokenizer=char."
    )


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"order": "mixed"}, "order must be 'same' or 'reversed', but got 'mixed'."),
        ({"symbols": 63}, "symbols must be from 1 to 62, but got 63."),
        ({"shortest": 17}, "shortest must be from 1 to longest, but got 17 and 16."),
        ({"batch_size": 0}, "batch_size and val_batches must be at least 1, but got 0 and 16."),
        ({"pairs": 31}, "pairs must be at least batch_size, but got 31 and 32."),
        (
            {"longest": 64},
            "longest must leave room for a pair in the model's max_length, but rows of 64 symbols take 65 tokens of "
            "64. Set a shorter data.longest, or model.max_length=65.",
        ),
        (
            {"longest": 32, "shape": "decoder"},
            "longest must leave room for a pair in the model's max_length, but rows of 32 symbols take 65 tokens of "
            "64. Set a shorter data.longest, or model.max_length=65.",
        ),
    ],
)
def test_refuses_choices_out_of_bounds(choices: dict, sentence: str):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole sentence is compared)
        pairs(**choices)
    assert str(refusal.value) == sentence
