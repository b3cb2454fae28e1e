"""Trees of running text: what hangs on what, whatever the tokens, and what batches say of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from blocks.contracts import IGNORE
from training.batch import Batch
from training.contracts import Tokenizer
from training.data.text import Text
from training.data.trees import Nesting
from training.data.windows import Windows
from training.objective.masked_token import MaskedToken
from training.objective.next_token import NextToken
from training.objective.span_corruption import SpanCorruption
from training.tokenizer.byte import Byte
from training.tokenizer.char import Char

CODE = "def f(x):\n    if x:\n        return [\n            g(x, 1),\n        ]\n    return {}\n\n\nf(2)\n"


class Pieces(Tokenizer):
    """A tokenizer whose tokens are some given pieces of text, spelled by ``|`` between them."""

    def __init__(self, text: str) -> None:
        self.pieces = sorted(set(text.split("|")))

    @property
    def text_ids(self) -> range:
        return range(4, 4 + len(self.pieces))

    def encode(self, text: str) -> np.ndarray:
        return np.array([4 + self.pieces.index(piece) for piece in text.split("|")])

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.pieces[i - 4] for i in ids if i in self.text_ids)

    def n_bytes(self, ids: np.ndarray) -> int:
        return len(self.decode(ids.tolist()).encode())


def heads_of(text: str) -> list[int]:
    return Nesting(Byte()).heads(Byte().encode(text)[None])[0].tolist()


def hangs(text: str) -> dict[int, int]:
    """The heads of the first characters of words and of the signs, where they stand."""
    heads = heads_of(text)
    inner = {i for i in range(1, len(text)) if text[i - 1 : i + 1].isalnum()}
    return {i: head for i, head in enumerate(heads) if not text[i].isspace() and i not in inner}


def test_a_line_hangs_on_the_nearest_earlier_one_that_is_indented_less():
    text = "a\n  b\n    c\n  d\ne\n f"
    a, b, c, d, e, f = (text.index(letter) for letter in "abcdef")
    assert hangs(text) == {a: a, b: a, c: b, d: a, e: e, f: e}


def test_what_stands_in_a_line_hangs_on_its_first_character():
    assert heads_of("x = y") == [0, 0, 0, 2, 0]
    assert hangs("  x = y") == {2: 2, 4: 2, 6: 2}


def test_a_word_hangs_together():
    assert heads_of("ab cd_1+é") == [0, 0, 1, 0, 3, 3, 3, 0, 0, 8]
    assert heads_of("ab\ncd") == [0, 0, 1, 3, 3]


def test_what_stands_in_brackets_hangs_on_the_innermost_and_so_does_their_end():
    assert heads_of("f(a[b],c).d") == [0, 0, 1, 1, 3, 3, 1, 1, 1, 0, 0]
    assert heads_of("([{}])") == [0, 0, 1, 2, 1, 0]


def test_inside_brackets_lines_do_not_count():
    text = "x = f(\n    a,\n    b\n) + c\n  d"
    bracket = text.index("(")
    at = hangs(text)
    assert [at[text.index(what)] for what in ("f", "(", "a", ",", "b", ")")] == [0, 0, *[bracket] * 4]
    assert [at[text.index(what)] for what in "+cd"] == [0, 0, 0]


def test_code_hangs_as_a_reader_sees_it():
    text, at = CODE, hangs(CODE)
    begin = {what: text.index(what) for what in ("def", "if", "return [", "g(", "]", "return {", "f(2")}
    assert at[begin["if"]] == at[begin["return {"]] == begin["def"]
    assert at[begin["return ["]] == begin["if"]
    assert at[begin["g("]] == at[begin["]"]] == text.index("[")
    assert at[text.index("1")] == text.index("g(") + 1
    assert at[begin["f(2"]] == begin["f(2"]
    assert at[text.index("2")] == begin["f(2"] + 1


def test_blanks_hang_on_what_stands_before_them():
    assert heads_of("  a \n\n  b") == [0, 1, 2, 2, 2, 2, 2, 2, 8]


def test_a_bracket_left_open_ends_with_a_line_that_is_not_inside_it():
    assert hangs("see (a\nb c") == {0: 0, 4: 0, 5: 4, 7: 7, 9: 7}
    assert hangs("  s (\n   a\nb c") == {2: 2, 4: 2, 9: 4, 11: 11, 13: 11}


def test_a_bracket_left_open_ends_with_the_one_around_it():
    assert heads_of("(a[b)c") == [0, 0, 0, 2, 0, 0]


def test_a_bracket_that_nothing_opened_is_a_sign():
    assert heads_of("a) (b]c") == [0, 0, 1, 0, 3, 3, 3]
    assert hangs("f(\n]\n)x") == {0: 0, 1: 0, 3: 1, 5: 1, 6: 0}


def test_a_line_that_closes_a_bracket_ends_those_that_were_opened_deeper():
    assert hangs("(\n  ((a\n)b") == {0: 0, 4: 0, 5: 4, 6: 5, 8: 0, 9: 0}


def test_a_token_that_is_no_text_is_a_root_and_begins_anew():
    ids = Byte().encode("a(b|\n  c")
    ids[3] = Byte.eos
    assert Nesting(Byte()).heads(ids[None])[0].tolist() == [0, 0, 1, 3, 4, 5, 6, 7]


def test_a_token_in_the_place_of_hidden_text_is_a_letter():
    tokenizer = Byte()
    tokenizer.reserve(2)
    for hidden in (tokenizer.mask, *tokenizer.sentinels):
        ids = tokenizer.encode("a(b c?")
        ids[[2, 5]] = hidden
        assert Nesting(tokenizer).heads(ids[None])[0].tolist() == heads_of("a(x cx") == [0, 0, 1, 2, 1, 4]


def test_rows_do_not_touch_each_other():
    text = "f(a\n g\n"
    ids = Byte().encode(text)
    several = Nesting(Byte()).heads(np.stack([ids, np.roll(ids, 3), ids]))
    assert several[0].tolist() == several[2].tolist() == heads_of(text)
    assert several[1].tolist() == heads_of(Byte().decode(np.roll(ids, 3)))


def test_what_hangs_on_something_before_the_window_is_a_root():
    text = "def f(a,\n      b):\n    return a"
    assert heads_of(text[6:])[:2] == [0, 0]
    assert heads_of(text[9:])[6] == 6
    assert hangs(text[24:]) == {0: 0, 6: 0}


def test_a_token_of_several_characters_is_judged_by_its_first_that_is_not_blank():
    spelled = "def| f(|x|,|\n    y|):|\n   |\n     return| x|)\n|\n"
    tokenizer = Pieces(spelled)
    heads = Nesting(tokenizer).heads(tokenizer.encode(spelled)[None])[0].tolist()
    #                def f( x , y ): \n return x ) \n
    assert heads == [0, 0, 1, 1, 1, 1, 5, 0, 7, 7, 9]


def test_a_byte_of_a_character_and_a_spelled_one_are_letters():
    char = Char()
    char.train(["ab ("])
    ids = char.encode("aéb (a")
    assert Nesting(char).heads(ids[None])[0].tolist() == [0, 0, 0, 0, 0, 0, 5, 0, 7]
    assert heads_of("aéb (a") == [0, 0, 0, 0, 3, 0, 5]
    assert Nesting(char).heads(char.encode("a é")[None])[0].tolist() == [0, 0, 0, 2, 2, 2]


def test_bytes_and_characters_make_one_tree():
    char = Char()
    char.train([CODE])
    assert Nesting(char).heads(char.encode(CODE)[None])[0].tolist() == heads_of(CODE)


def test_the_end_of_a_row_changes_nothing_before_it():
    heads = heads_of(CODE)
    for length in range(1, len(CODE)):
        assert heads_of(CODE[:length]) == heads[:length]


def slowly(text: str) -> list[int]:
    """The rules one character after another; ``text`` is of letters, brackets, signs and blanks."""
    heads: list[int] = []
    lines: list[tuple[int, int]] = []  # width, place
    brackets: list[tuple[str, int, int]] = []  # which, place, width of its line
    width = 0
    for i, c in enumerate(text):
        before = text[text.rfind("\n", 0, i) + 1 : i]
        if c.isspace():
            heads.append(len(text[:i].rstrip()) - 1 if text[:i].strip() else i)
            continue
        head = brackets[-1][1] if brackets else lines[-1][1] if lines else i
        if not before.strip():
            width = len(before)
            while brackets and not (brackets[-1][2] < width or (brackets[-1][2] == width and c in ")]}")):
                brackets.pop()
            lines = [line for line in lines if brackets or line[0] < width]
            head = brackets[-1][1] if brackets else lines[-1][1] if lines else i
            lines += [] if brackets else [(width, i)]
        if (before[-1:] + c).isalpha() and before[-1:]:
            head = len(text[:i].rstrip("ab"))
        if c in ")]}" and any(opened + c in ("()", "[]", "{}") for opened, _, _ in brackets):
            while (opened := brackets.pop())[0] + c not in ("()", "[]", "{}"):
                continue
            head = opened[1]
        if c in "([{":
            brackets.append((c, i, width))
        heads.append(head)
    return heads


@pytest.mark.parametrize("seed", range(4))
def test_any_text_hangs_as_the_rules_say(seed: int):
    dice = random.Random(seed)
    for _ in range(200):
        text = "".join(dice.choices("ab()[]{}, \n", weights=[4, 4, 2, 2, 1, 1, 1, 1, 1, 6, 3], k=60))
        assert heads_of(text) == slowly(text), repr(text)


def data_of(folder: Path, kind=MaskedToken, shape="encoder", length=32, **choices) -> Text:
    tokenizer = Byte()
    objective = kind(tokenizer, length, shape, "text")
    data = Text(tokenizer, objective, length, 0, path=str(folder), trees="nesting", **choices)
    data.setup()
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i:02}.py").write_text(CODE[: len(CODE) - i] + f"a{i} = ({i}\n", encoding="utf-8")
    return tmp_path / "texts"


@pytest.mark.parametrize("packing", ["stream", "documents"])
@pytest.mark.parametrize(("kind", "shape"), [(MaskedToken, "encoder"), (NextToken, "decoder")])
def test_each_head_is_an_earlier_token_of_its_document_or_the_token_itself(folder, kind, shape, packing):
    data = data_of(folder, kind, shape, packing=packing)
    assert data.trees == "made"
    pointing = 0
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        layout = batch.layout
        assert layout.heads.shape == batch.tokens.shape
        assert layout.heads.dtype == torch.int64
        assert layout.dense == (packing == "stream")
        assert (layout.heads >= 0).all()
        assert (layout.heads <= layout.position).all()  # so there are no circles
        pointing += (layout.heads < layout.position).sum().item()
    assert pointing > 1000


def test_heads_are_positions_in_their_own_document(folder: Path):
    data = data_of(folder, packing="documents", length=64)
    for batch in data.val_dataloader():
        layout = batch.layout
        for row in range(len(batch.tokens)):
            for document in layout.document[row].unique():
                here = layout.document[row] == document
                ids = batch.tokens[row, here]
                heads = layout.heads[row, here].tolist()
                if ids[-1] == data.tokenizer.eos:
                    assert heads[-1] == len(heads) - 1
                    ids, heads = ids[:-1], heads[:-1]
                shown = ids.numpy() - data.tokenizer.text_ids.start  # a mask and half of a character are letters
                assert heads == heads_of("".join(chr(i) if 0 <= i < 128 else "m" for i in shown))


def inputs(batch: Batch) -> list[torch.Tensor]:
    """All that an encoder reads of a batch."""
    read, layout = (batch.tokens, batch.layout) if batch.source is None else (batch.source, batch.source_layout)
    return [read, layout.position, layout.document, layout.heads]


@pytest.mark.parametrize("packing", ["stream", "documents"])
@pytest.mark.parametrize("hidden", ["(", ")", "\n", " ", "z"])
def test_what_a_mask_hides_changes_nothing_that_the_model_is_shown(folder: Path, packing, hidden: str):
    data = data_of(folder, packing=packing, length=64)
    batch = data._batch(data.train, data.train.spread(16), np.random.default_rng(3))
    hides = (batch.targets != IGNORE) & (batch.tokens != batch.targets)  # masked, or another token in its place
    assert hides.sum() > 100
    others = batch.tokens.where(batch.targets == IGNORE, batch.targets)
    others[hides] = int(data.tokenizer.encode(hidden)[0])
    again = data._batch(Windows(others.flatten().numpy(), 64, 0), np.arange(16) * 64, np.random.default_rng(3))
    assert (again.targets[hides] != batch.targets[hides]).any()
    for shown, the_same in zip(inputs(batch), inputs(again), strict=True):
        assert shown.equal(the_same)
    assert (batch.layout.heads < batch.layout.position).sum() > 100


@pytest.mark.parametrize("hidden", ["(", ")", "\n", " ", "z"])
def test_what_is_cut_out_changes_nothing_of_the_source(folder: Path, hidden: str):
    data = data_of(folder, SpanCorruption, "encoder_decoder", length=64)
    rows = np.stack([w.tokens for w in data.train.examples(data.train.spread(16), None)])
    before = data._batch(Windows(rows.flatten(), data.window, 0), np.arange(16) * data.window, np.random.default_rng(3))
    stand_in = int(data.tokenizer.encode(hidden)[0])
    kept = np.zeros(rows.shape, dtype=bool)
    marked = np.arange(data.window)[None].repeat(16, 0)  # each token is its own index, to see which are left
    source, _ = data.objective._cut(marked, _after_the_seed())
    for row, left in zip(kept, source, strict=True):
        row[left[left < data.window]] = True
    others = np.where(kept, rows, stand_in)
    after = data._batch(
        Windows(others.flatten(), data.window, 0), np.arange(16) * data.window, np.random.default_rng(3)
    )
    assert not before.targets.equal(after.targets)
    for shown, the_same in zip(inputs(before), inputs(after), strict=True):
        assert shown.equal(the_same)
    assert (before.source_layout.heads < before.source_layout.position).sum() > 100


def _after_the_seed() -> np.random.Generator:
    """The generator of a batch, once its seed for dropout is drawn."""
    rng = np.random.default_rng(3)
    rng.integers(2**63)
    return rng


def test_next_token_gives_the_trees_of_what_it_reads(folder: Path):
    data = data_of(folder, NextToken, "decoder")
    batch = next(iter(data.train_dataloader()))
    for tokens, heads in zip(batch.tokens, batch.layout.heads, strict=True):
        ids = tokens.numpy()[None]
        assert Nesting(data.tokenizer).heads(ids)[0].tolist() == heads.tolist()


def test_trees_travel_to_the_device_and_through_a_forward(folder: Path):
    batch = next(iter(data_of(folder).train_dataloader()))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert moved.layout.heads.is_meta
    assert batch.layout.fresh().heads is batch.layout.heads


def test_without_trees_there_are_no_heads(folder: Path):
    data = Text(Byte(), MaskedToken(Byte(), 32, "encoder", "text"), 32, 0, path=str(folder))
    data.setup()
    assert data.trees == "none"
    assert next(iter(data.train_dataloader())).layout.heads is None


@pytest.mark.parametrize(
    ("kind", "shape", "trees", "sentence"),
    [
        (MaskedToken, "encoder", "oak", "trees must be 'none' or 'nesting', but got 'oak'."),
    ],
)
def test_refuses(kind, shape: str, trees: str, sentence: str):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole sentence is compared)
        Text(Byte(), kind(Byte(), 32, shape, "text"), 32, 0, path="a", trees=trees)
    assert str(refusal.value) == sentence
