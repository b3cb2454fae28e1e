"""Running text: which files it takes, what its batches hold, what it says of itself, what it refuses."""

import math
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from registry.errors import DataError
from training.batch import Batch
from training.data.text import Text
from training.objective.masked_token import MaskedToken
from training.objective.next_token import NextToken
from training.objective.span_corruption import SpanCorruption
from training.tokenizer.byte import Byte
from training.tokenizer.char import Char

LINES = "".join(f"line {i} of the text\n" for i in range(400))


def text(path: Path | str | list[str], *, tokenizer=None, max_length: int = 16, seed: int = 0, **choices) -> Text:
    tokenizer = tokenizer or Byte()
    objective = NextToken(tokenizer, max_length, "decoder", "text")
    paths = [str(p) for p in path] if isinstance(path, list) else str(path)
    data = Text(tokenizer, objective, max_length, seed, path=paths, **choices)
    data.setup()
    return data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.targets, b.targets) and a.step_seed == b.step_seed


def test_a_batch_is_text_and_its_continuation(file: Path):
    data = text(file)
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens.shape == batch.targets.shape == (16, 16)
    assert batch.layout.dense
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    for row in torch.cat([batch.tokens, batch.targets[:, -1:]], dim=1).tolist():
        assert data.tokenizer.decode(row) in LINES


@pytest.mark.parametrize(("batch_size", "told"), [(20, False), (21, True)])
def test_a_batch_that_repeats_windows_is_told(tmp_path: Path, batch_size: int, told: bool):
    letters = np.random.default_rng(0).integers(97, 123, 17 + 20 * 16).astype(np.uint8)  # no two windows are alike
    (tmp_path / "a").write_bytes(letters.tobytes())
    (tmp_path / "b").write_text(LINES, encoding="utf-8")
    data = text(tmp_path / "a", val_path=str(tmp_path / "b"), batch_size=batch_size)
    batch = next(iter(data.train_dataloader()))
    assert (len(batch.tokens.unique(dim=0)) < batch_size) == told
    assert data.facts["notes"] == told * [
        "a batch has 21 windows, but the training text only 20: each batch repeats them. "
        "Use more text, a smaller data.batch_size or a shorter data.length."
    ]


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("First Citizen:\nBefore we proceed any further\n", "First Citizen:"),
        ("Before we proceed any further, hear me speak.\n", "Before we"),
        ('"quoted words"\n  import os, sys\n', "import os,"),
        ("it's said\nhe said so\n", "he said so"),
        ("\n\n'x'\n", "'x'"),
        ("- one\n- two\n", "- one"),
        ("漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字\n", "漢字漢字漢字漢字漢字"),
        ("\x1b[2J\n", ""),
    ],
)
def test_the_prompt_is_how_a_line_of_the_training_text_begins(tmp_path: Path, content: str, prompt: str):
    (tmp_path / "a").write_text(content * 30, encoding="utf-8")
    (tmp_path / "b").write_text("another text\n" * 30, encoding="utf-8")
    data = text(tmp_path / "a", val_path=str(tmp_path / "b"), batch_size=1, max_length=64)
    assert data.facts["prompt"] == prompt


def test_the_prompt_leaves_half_of_a_row_for_the_answer(tmp_path: Path):
    (tmp_path / "a").write_text("né quelque part\n" * 30, encoding="utf-8")
    assert text(tmp_path / "a", batch_size=1, max_length=16).facts["prompt"] == "né quel"
    assert text(tmp_path / "a", batch_size=1, max_length=7).facts["prompt"] == "né"


def test_validation_reads_the_last_part_from_its_first_token_to_its_last(file: Path):
    data = text(file, val_batches=None, batch_size=7)
    rows = [row for batch in data.val_dataloader() for row in batch.targets.tolist()]
    said = "".join(data.tokenizer.decode(row) for row in rows)
    last = LINES[int(0.9 * len(LINES)) :]
    assert last[1:].startswith(said)
    assert len(last) - len(said) <= 16


def test_training_never_meets_the_validation_text(tmp_path: Path):
    (tmp_path / "a").write_text("x" * 900 + "y" * 100, encoding="utf-8")
    data = text(tmp_path / "a")
    seen = torch.cat([b.targets.unique() for b in data.train_dataloader()]).unique()
    assert data.tokenizer.decode(seen) == "x"
    assert {data.tokenizer.decode(b.tokens.unique()) for b in data.val_dataloader()} == {"y"}


def test_val_path_replaces_the_last_part(tmp_path: Path, file: Path):
    (tmp_path / "val").write_text("z" * 50, encoding="utf-8")
    data = text(file, val_path=str(tmp_path / "val"))
    assert data.facts["train_bytes"] == len(LINES)
    assert data.facts["val_bytes"] == 50


def test_batches_are_a_function_of_seed_epoch_and_index(file: Path):
    one, again, other = text(file), text(file), text(file, seed=1)
    first = [list(data.train_dataloader()) for data in (one, again, other)]
    assert all(same(a, b) for a, b in zip(first[0], first[1], strict=True))
    assert not any(same(a, b) for a, b in zip(first[0], first[2], strict=True))
    assert not {b.step_seed for b in first[0]} & {b.step_seed for b in first[2]}
    loader = again.train_dataloader()
    loader.load_state_dict({"given": len(loader)})
    assert not any(same(a, b) for a, b in zip(first[0], loader, strict=True))
    assert len({b.step_seed for b in first[0]}) == len(first[0])


def test_taken_up_in_the_middle_it_goes_on_bitwise(file: Path):
    loader = text(file).train_dataloader()
    whole = [batch for _ in range(3) for batch in loader]
    for given in (0, 5, len(loader), len(loader) + 3):
        resumed = text(file).train_dataloader()
        resumed.load_state_dict({"given": given})
        assert all(same(a, b) for a, b in zip(whole[given:], islice(resumed, 4), strict=False))


@pytest.mark.parametrize("asks", ["masked", "spans"])
def test_what_is_hidden_repeats_with_the_batch_and_changes_with_the_epoch(file: Path, asks: str):
    def data() -> Text:
        tokenizer = Byte()
        objective = (
            MaskedToken(tokenizer, 32, "encoder", "text")
            if asks == "masked"
            else SpanCorruption(tokenizer, 32, "encoder_decoder", "text")
        )
        found = Text(tokenizer, objective, 32, 0, path=str(file))
        found.setup()
        return found

    one, other = data(), data()
    loader, again = one.train_dataloader(), other.train_dataloader()
    assert all(same(a, b) for a, b in zip([*loader, *loader], [*again, *again], strict=True))
    val = [list(one.val_dataloader()) for _ in range(2)]
    assert all(same(a, b) for a, b in zip(*val, strict=True))


def test_validation_does_not_depend_on_the_seed(file: Path):
    a, b = (list(text(file, seed=seed).val_dataloader()) for seed in (0, 1))
    assert all(same(x, y) for x, y in zip(a, b, strict=True))


def test_a_text_of_one_window_fills_a_batch(tmp_path: Path):
    (tmp_path / "a").write_text("abcdefghijklmnopq", encoding="utf-8")
    (tmp_path / "b").write_text("abcdefghijklmnopq", encoding="utf-8")
    data = text(tmp_path / "a", val_path=str(tmp_path / "b"), batch_size=3)
    (batch,) = data.train_dataloader()
    assert [data.tokenizer.decode(row) for row in batch.tokens] == ["abcdefghijklmnop"] * 3


def test_files_folders_and_globs_name_files_once_and_in_order(tmp_path: Path):
    for name in ("b.txt", "a.txt", "inner/c.txt", "inner/d.md", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name} ".ljust(100), encoding="utf-8")

    def names(*patterns: str) -> list[str]:
        paths = [f"{tmp_path}/{p}" for p in patterns]
        data = Text(Byte(), NextToken(Byte(), 8, "decoder", "text"), 8, 0, path=paths, val_path=paths)
        return [str(d.path.relative_to(tmp_path)) for d in data.documents()[0]]

    assert names("") == ["a.txt", "b.txt", "inner/c.txt", "inner/d.md"]
    assert names("*.txt") == ["a.txt", "b.txt"]
    assert names("**/*.txt") == ["a.txt", "b.txt", "inner/c.txt"]
    assert names("b.txt", "*.txt") == ["b.txt", "a.txt"]


def test_documents_stand_apart_and_end(tmp_path: Path):
    for name in "abc":
        (tmp_path / name).write_text(name * 10, encoding="utf-8")
    data = text(tmp_path, val_fraction=0.4, length=4)
    assert data.tokenizer.decode(data.train.tokens) == "a" * 10 + "b" * 8
    assert data.train.tokens.tolist().index(data.tokenizer.eos) == 10
    assert data.facts["train_tokens"] == 19
    assert data.facts["train_bytes"] == 18


def test_packed_documents_are_not_asked_across_their_borders(tmp_path: Path):
    for name in "abcdef":
        (tmp_path / name).write_text(name * 5, encoding="utf-8")
    data = text(tmp_path, val_fraction=0.4, length=11, packing="documents")
    eos = data.tokenizer.eos
    (window,) = data.train.examples(np.array([0]), data.end)
    batch = data.objective.batch([window], np.random.default_rng(0))
    a, b = (data.tokenizer.encode(x)[0] for x in "ab")
    assert batch.tokens[0].tolist() == [a] * 5 + [eos] + [b] * 5
    assert batch.targets[0].tolist() == [a] * 4 + [eos, -100] + [b] * 4 + [eos]
    assert batch.layout.document[0].tolist() == [0] * 6 + [1] * 5
    assert batch.layout.position[0].tolist() == [*range(6), *range(5)]
    assert not batch.layout.dense


def test_tells_the_facts(tmp_path: Path):
    (tmp_path / "a").write_text("aaab" * 100, encoding="utf-8")
    (tmp_path / "b").write_text("abé" * 10, encoding="utf-8")
    data = text(tmp_path / "a", val_path=str(tmp_path / "b"), tokenizer=Char())
    nats = -(math.log(301 / 422) + math.log(101 / 422) + 4 * math.log(1 / 422)) / 6
    facts = data.facts
    assert data.vocab_size == 22
    assert facts.pop("fingerprint").isalnum()
    assert facts.pop("unigram_entropy") == pytest.approx(nats)
    assert facts == {
        "train_tokens": 400,
        "val_tokens": 60,
        "train_bytes": 400,
        "val_bytes": 40,
        "bytes_per_token": 40 / 60,
        "source": str(tmp_path / "a"),
        "prompt": "aaabaaab",
        "notes": [],
    }


def test_the_fingerprint_follows_content_and_split(tmp_path: Path, file: Path):
    (tmp_path / "copy").write_text(LINES, encoding="utf-8")
    (tmp_path / "other").write_text(LINES.replace("399", "398"), encoding="utf-8")
    first, copy, other, split = (
        data.facts["fingerprint"]
        for data in (text(file), text(tmp_path / "copy"), text(tmp_path / "other"), text(file, val_fraction=0.2))
    )
    assert first == copy
    assert len({first, other, split}) == 3


def test_a_changed_file_is_read_anew(file: Path):
    text(file)
    file.write_text(LINES.upper(), encoding="utf-8")
    assert text(file).tokenizer.decode(text(file).train.tokens[:6]) == "LINE 0"


def test_a_tokenizer_that_learned_something_else_reads_anew(tmp_path: Path, cache: Path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name * 100, encoding="utf-8")
    (tmp_path / "val").write_text("to" * 100, encoding="utf-8")
    val = str(tmp_path / "val")
    decoded = [
        data.tokenizer.decode(data.val.tokens)
        for data in (text(tmp_path / name, val_path=val, tokenizer=Char()) for name in ("one", "two"))
    ]
    assert decoded == ["to" * 100] * 2
    assert len(list(cache.iterdir())) == 4


def test_setup_is_done_once(file: Path):
    data = text(file)
    file.unlink()
    data.setup("fit")
    assert data.facts["train_tokens"] == int(0.9 * len(LINES))


def test_prompts_are_how_validation_lines_begin(tmp_path: Path):
    (tmp_path / "a").write_text("x" * 50, encoding="utf-8")
    (tmp_path / "one").write_text(
        "first of one\n\n" + "more\n" * 19 + "a line that is a good deal longer than that\n", encoding="utf-8"
    )
    (tmp_path / "two").write_text("first of two\n", encoding="utf-8")
    data = text(tmp_path / "a", val_path=[str(tmp_path / "one"), str(tmp_path / "two")])
    assert list(data.samples()) == ["first of one", "first of two", "a line that is a good deal longe"]


def refused(path: Path | str | list[str], **choices) -> str:
    with pytest.raises(DataError) as refusal:
        text(path, **choices)
    assert refusal.value.status == 3
    return str(refusal.value)


def test_refuses_a_missing_file(tmp_path: Path):
    said = "data.path must name files that exist, but there are none at {!r}, looked up in {}."
    for pattern in (f"{tmp_path}/none", f"{tmp_path}/*.none", ""):
        assert refused(pattern) == said.format(pattern, Path.cwd())
    (tmp_path / "a").write_text(LINES, encoding="utf-8")
    missing = f"{tmp_path}/val"
    expected = said.format(missing, Path.cwd()).replace("data.path", "data.val_path")
    assert refused(tmp_path / "a", val_path=missing) == expected


def test_refuses_what_can_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    long = f"{tmp_path}/{'x' * 300}"
    assert refused(long) == f"data.path must be readable, but {long} is not (File name too long)."
    (tmp_path / "a").write_text(LINES, encoding="utf-8")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def scandir(path):
        if Path(path).name == "closed":  # what a person without rights sees; root may look everywhere
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert refused(tmp_path) == f"data.path must be readable, but {tmp_path / 'closed'} is not (Permission denied)."


def test_refuses_empty_files(tmp_path: Path):
    (tmp_path / "a").touch()
    said = "data.path must name files with text in them, but got {}."
    assert refused(tmp_path / "a") == said.format(tmp_path / "a")
    assert refused([]) == said.format("an empty list")


def test_refuses_a_text_shorter_than_a_window(tmp_path: Path):
    (tmp_path / "a").write_text("x" * 20, encoding="utf-8")
    assert refused(tmp_path / "a", max_length=64) == (
        "the training text must be at least one window of 65 tokens, but has 18. "
        "Use more text, or a shorter data.length."
    )
    assert refused(tmp_path / "a", max_length=64, length=8) == (
        "the validation text must be at least one window of 9 tokens, but has 2. "
        "Use more text, a larger data.val_fraction, or a shorter data.length."
    )


def test_refuses_latin1(tmp_path: Path):
    (tmp_path / "a").write_bytes(LINES.encode() + b"na\xefve")
    said = f"text must be UTF-8, but byte {len(LINES) + 2} of {tmp_path / 'a'} is 0xef."
    assert refused(tmp_path / "a").startswith(said)


def test_refuses_ids_beyond_the_vocabulary(file: Path):
    class Lying(Byte):
        @property
        def text_ids(self) -> range:
            return range(4, 50)

    assert refused(file, tokenizer=Lying()) == (
        "token ids must be below 50, the size of the tokenizer's vocabulary, but got ids from 14 to 124."
    )


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        (
            {"length": 17},
            "length must be from 1 to the model's max_length, but got 17 and 16. "
            "Set a shorter data.length, or a longer model.max_length.",
        ),
        (
            {"length": 0},
            "length must be from 1 to the model's max_length, but got 0 and 16. "
            "Set a shorter data.length, or a longer model.max_length.",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, but got 0."),
        ({"val_fraction": 1.0}, "val_fraction must be between 0 and 1, but got 1.0."),
        ({"val_batches": 0}, "val_batches must be at least 1, or null for all, but got 0."),
        ({"packing": "tight"}, "packing must be 'stream' or 'documents', but got 'tight'."),
    ],
)
def test_refuses_choices_out_of_bounds(file: Path, choices: dict, sentence: str):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the whole sentence is compared)
        text(file, **choices)
    assert str(refusal.value) == sentence


def test_refuses_to_keep_documents_apart_where_spans_are_cut():
    tokenizer = Byte()
    objective = SpanCorruption(tokenizer, 16, "encoder_decoder", "text")
    with pytest.raises(ValueError, match=r"^packing must be 'stream' for SpanCorruption, which takes a window as one"):
        Text(tokenizer, objective, 16, 0, path="a", packing="documents")
