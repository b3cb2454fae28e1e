"""Characters: what is learned, and what happens to those that were not."""

import json

import numpy as np
import pytest

from training.tokenizer.char import Char


@pytest.fixture
def tokenizer() -> Char:
    char = Char()
    char.train(["hello", "wörld"])
    return char


def test_learns_each_character_once_in_order(tokenizer: Char):
    assert tokenizer.characters == "dehlorwö"
    assert tokenizer.vocab_size == 4 + 16 + 8
    assert tokenizer.encode("deö").tolist() == [20, 21, 27]


def test_known_text_comes_back(tokenizer: Char):
    assert tokenizer.decode(tokenizer.encode("hello wörld".replace(" ", ""))) == "hellowörld"


def test_an_unknown_character_is_spelled_by_its_bytes(tokenizer: Char):
    assert tokenizer.encode("é").tolist() == [4 + 0xC, 4 + 0x3, 4 + 0xA, 4 + 0x9]


@pytest.mark.parametrize("text", ["hé", "漢d字", "🜚🜚", "x", "xhxx", "", "\x00d"])
def test_any_text_comes_back(tokenizer: Char, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.n_bytes(ids) == len(text.encode())


def test_characters_are_as_many_bytes_as_in_utf8():
    text = "\x7f\x80\u07ff\u0800\uffff\U00010000"
    char = Char()
    char.train([text])
    assert [char.n_bytes(char.encode(c)) for c in text] == [1, 2, 2, 3, 3, 4]


def test_special_ids_stand_for_no_bytes(tokenizer: Char):
    tokenizer.reserve(1)
    ids = [tokenizer.bos, *tokenizer.encode("hö"), *tokenizer.sentinels, tokenizer.eos]
    assert tokenizer.decode(ids) == "hö"
    assert tokenizer.n_bytes(np.array(ids)) == 3


def test_digits_that_spell_nothing_are_shown_as_such(tokenizer: Char):
    unknown = tokenizer.encode("é")
    assert tokenizer.decode([*unknown[:2], *tokenizer.encode("d"), unknown[0]]) == "�d"


def test_its_state_is_json_and_says_all(tokenizer: Char):
    other = Char()
    other.load_state(json.loads(json.dumps(tokenizer.state())))
    assert other.vocab_size == tokenizer.vocab_size
    assert other.encode("hell yeah").tolist() == tokenizer.encode("hell yeah").tolist()


def test_is_usable_before_it_learned_anything():
    assert Char().decode(Char().encode("aé")) == "aé"
