"""Holds words to: each is parsed once, and whatever text it chooses arrives unchanged."""

from __future__ import annotations

import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from registry import ConfigError
from registry.compose import Job, launch
from registry.compose.hydra import parse
from registry.compose.words import Several
from registry.quoting import advice, literal, quoted, spelt

ALPHABET = "abcXYZ019 \t\n.,;:!?#&~<>|=+-*/\\\\\\'\"\"''`()[]{}$${%@^_éüß日本語🙂\x01\x7f"
WORDS = [
    "null",
    "true",
    "on",
    "1e3",
    "nan",
    "???",
    "${x}",
    "${oc.env:HOME}",
    "\\",
    "\\'",
    "'",
    '"',
    "a,b",
    "[1]",
    "{a:1}",
]


def texts(number: int) -> list[str]:
    dice = random.Random(0)
    drawn = ["".join(dice.choices(ALPHABET, k=dice.randrange(1, 12))) for _ in range(number)]
    return [
        *(w for w in WORDS if w != "???"),
        *drawn,
        "",
        " ",
        "日本.txt",
        "a # b",
        "~/x",
        "é",
        "a;b",
        "x&y",
        "<a>",
        "!",
    ]


def test_any_text_in_quotes_is_read_unchanged():
    for text in texts(1000):
        assert parse(f"data.path={quoted(text)}").value == text
        assert parse(f"data.path={spelt(text)}").value == text
        assert parse(f"data.path={spelt([text, {'a': text}])}").value == [text, {"a": text}]
        (copied,) = shlex.split(advice("data.path", text))
        assert parse(copied).value == literal(text)


def test_any_value_is_read_as_it_is_spelt():
    for value in [
        None,
        True,
        False,
        0,
        -3,
        1e-5,
        0.1,
        1e300,
        [],
        {},
        [1, "1", True, "true", None, "null"],
        {"a": [{}]},
    ]:
        read = parse(f"x={spelt(value)}").value
        assert read == value
        assert json.dumps(read) == json.dumps(value)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))

    def run(*words: str) -> list[Job]:
        found: list[Job] = []
        status = launch(lambda job: found.append(job) or job.record(), lambda records: 0, list(words))
        assert status == 0
        return found

    return run


def test_any_text_reaches_the_spec_unchanged(jobs):
    """Each stands in a list, whose members the spec takes one by one."""
    sent = texts(1000)
    (job,) = jobs("data=text", f"data.path=[{','.join(quoted(literal(t)) for t in sent)}]")
    assert job.spec["data"]["path"] == sent


ACCENT = "é" if sys.getfilesystemencoding() == "utf-8" else "e"  # what the names of files may hold here


def test_any_text_is_swept_unchanged_and_replayed(jobs, tmp_path):
    sent = list(dict.fromkeys(t for t in texts(20) if t))
    swept = jobs("-m", "data=text", f"data.path={','.join(quoted(literal(t)) for t in sent)}")
    assert [job.spec["data"]["path"] for job in swept] == sent
    for number, job in enumerate(swept[::12]):
        folder = tmp_path / f"before{number} {ACCENT}'s"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"overrides": job.overrides}), encoding="utf-8")
        (again,) = jobs(f"rerun={quoted(str(folder))}", f"ckpt_path={quoted(literal(job.spec['data']['path']))}")
        assert again.spec["data"]["path"] == again.spec["ckpt_path"] == job.spec["data"]["path"]


def test_several_values_are_read_one_by_one():
    assert parse("seed=1,2").value == Several((1, 2))
    assert parse("seed=range(1,4)").value == Several((1, 2, 3))
    assert parse("norm=choice(rms,'a,b')").value == Several(("rms", "a,b"))
    assert sorted(parse("norm=shuffle(rms,layer)").value.values) == ["layer", "rms"]
    assert parse("norm=glob(*,exclude=none)").value.glob == (("*",), ("none",))
    assert parse("optimizer.lr=interval(0,1)").value.open == "interval(0,1)"


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("+decoder/mixer=lstm", "decoder.mixer"),
        ("++seed=1", "seed"),
        ("decoder.layers.[0-2].ffn=mlp", "decoder.layers.[0-2].ffn"),
        ("decoder.layers.-1.ffn=mlp", "decoder.layers.-1.ffn"),
        ("~callbacks.sample", "callbacks.sample"),
    ],
)
def test_a_path_is_read_in_each_of_its_spellings(word, path):
    read = parse(word)
    assert read.path == path
    assert read.deletes == word.startswith("~")


@pytest.mark.parametrize("word", ["=x", "..=x", "a..b=1"])
def test_a_word_without_a_path_is_refused(word):
    with pytest.raises(ConfigError, match="but it names no path"):
        parse(word)


def test_the_advice_can_be_copied():
    with pytest.raises(ConfigError) as refusal:
        parse("data.path=日本 x.txt")
    assert str(refusal.value).endswith("signs: 'data.path=\"日本 x.txt\"'.")
