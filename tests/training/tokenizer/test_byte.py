"""Bytes against UTF-8 itself."""

import numpy as np
import pytest

from training.tokenizer.byte import Byte

TEXT = "def f(): return 'naïve — 漢字 🜚'\r\n\x00"


def test_ids_are_bytes_after_the_four_special_ones():
    assert Byte().encode("aé").tolist() == [4 + 0x61, 4 + 0xC3, 4 + 0xA9]


def test_every_text_comes_back():
    assert Byte().decode(Byte().encode(TEXT)) == TEXT


def test_special_ids_are_left_out():
    tokenizer = Byte()
    tokenizer.reserve(2)
    ids = [tokenizer.bos, *tokenizer.encode("ab"), tokenizer.mask, *tokenizer.sentinels, tokenizer.eos, tokenizer.pad]
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.n_bytes(np.array(ids)) == 2


def test_counts_bytes_not_characters():
    assert Byte().n_bytes(Byte().encode(TEXT)) == len(TEXT.encode())


def test_a_broken_character_is_shown_as_such():
    assert Byte().decode(Byte().encode("aé")[:-1]) == "a�"


def test_sentinels_come_last_and_are_reserved_once():
    tokenizer = Byte()
    assert (tokenizer.vocab_size, list(tokenizer.sentinels)) == (260, [])
    tokenizer.reserve(3)
    tokenizer.reserve(2)
    assert (tokenizer.vocab_size, list(tokenizer.sentinels)) == (263, [260, 261, 262])


def test_empty_text_has_no_ids():
    assert Byte().encode("").tolist() == []
    assert Byte().decode([]) == ""


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(ValueError, match="surrogates not allowed"):
        Byte().encode("\ud800")
