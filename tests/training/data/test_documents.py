"""Documents: parts of files, split at characters, refused where they are not UTF-8."""

import shlex
from pathlib import Path

import pytest

from registry.errors import DataError
from training.data import documents
from training.data.documents import Document, fingerprint, split


def write(path: Path, text: str | bytes) -> Document:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Document.whole(path)


def said(parts: list[Document]) -> str:
    return "".join(piece for part in parts for piece in part.pieces())


@pytest.mark.parametrize("piece", [1, 5, 1 << 24])
def test_pieces_are_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int):
    monkeypatch.setattr(documents, "PIECE", piece)
    text = "naïve\n漢字\r\n\nend"
    document = write(tmp_path / "a", text)
    assert said([document]) == text
    assert said([document._replace(start=1, stop=document.size - 2)]) == text[1:-2]


@pytest.mark.parametrize("at", range(10))
def test_a_cut_never_splits_a_character(tmp_path: Path, at: int):
    document = write(tmp_path / "a", "aé漢🜚b")
    first, second = document.cut(at)
    assert said([first]) + said([second]) == "aé漢🜚b"
    assert at <= first.size <= at + 3


def test_split_takes_the_last_bytes(tmp_path: Path):
    parts = [write(tmp_path / "a", "x" * 60), write(tmp_path / "b", "y" * 40)]
    train, val = split(parts, 0.1)
    assert (said(train), said(val)) == ("x" * 60 + "y" * 30, "y" * 10)


def test_split_between_two_documents_leaves_no_empty_ones(tmp_path: Path):
    parts = [write(tmp_path / "a", "x" * 50), write(tmp_path / "b", "y" * 50)]
    assert split(parts, 0.5) == (parts[:1], parts[1:])


def test_fingerprint_is_of_content_and_order(tmp_path: Path):
    a, b = write(tmp_path / "a", "one"), write(tmp_path / "b", "two")
    same = write(tmp_path / "c", "one")
    assert fingerprint([a, b]) == fingerprint([same, b])
    assert len({fingerprint(parts) for parts in ([a, b], [b, a], [a], [write(tmp_path / "d", "onetwo")])}) == 4


def test_fingerprint_does_not_depend_on_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    document = write(tmp_path / "a", "one\ntwo\nthree")
    whole = fingerprint([document])
    monkeypatch.setattr(documents, "PIECE", 2)
    assert fingerprint([document]) == whole


@pytest.mark.parametrize("piece", [2, 1 << 24])
def test_refuses_what_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int):
    monkeypatch.setattr(documents, "PIECE", piece)
    document = write(tmp_path / "a", b"fine\nna\xefve")
    with pytest.raises(DataError) as refusal:
        fingerprint([document])
    assert str(refusal.value) == (
        f"text must be UTF-8, but byte 7 of {document.path} is 0xef. "
        f"Convert it, for instance with: iconv -f latin1 -t utf-8 {shlex.quote(str(document.path))}"
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            b"a \x93quote\x94",
            "byte 2 of {path} is 0x93. Convert it, for instance with: iconv -f cp1252 -t utf-8 {quoted}",
        ),
        (
            "é\n".encode("utf-16"),
            "{path} is in UTF-16. Convert it, for instance with: iconv -f utf-16 -t utf-8 {quoted}",
        ),
        (
            "é\n".encode("utf-32"),
            "{path} is in UTF-32. Convert it, for instance with: iconv -f utf-32 -t utf-8 {quoted}",
        ),
        (
            "abc é\n".encode("utf-16le"),
            "{path} is in UTF-16LE. Convert it, for instance with: iconv -f utf-16le -t utf-8 {quoted}",
        ),
        (
            "abc\n".encode("utf-16be"),
            "{path} is in UTF-16BE. Convert it, for instance with: iconv -f utf-16be -t utf-8 {quoted}",
        ),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "{path} is no text: byte 0 is 0x89. Leave it out, and name the files of text alone.",
        ),
        (
            b"\x7fELF\x02\x01\x01\0\0\0\0\xff",
            "{path} is no text: byte 11 is 0xff. Leave it out, and name the files of text alone.",
        ),
    ],
    ids=["cp1252", "utf-16", "utf-32", "utf-16le", "ascii in utf-16be", "png", "elf"],
)
def test_the_advice_fits_what_the_bytes_are(tmp_path: Path, data: bytes, sentence: str):
    path = write(tmp_path / "a b", data).path
    with pytest.raises(DataError) as refusal:
        fingerprint([Document.whole(path)])
    assert str(refusal.value) == f"text must be UTF-8, but {sentence.format(path=path, quoted=shlex.quote(str(path)))}"


def test_a_text_with_a_zero_in_it_is_a_text(tmp_path: Path):
    assert said([write(tmp_path / "a", "one\0two")]) == "one\0two"


def test_refuses_what_is_gone(tmp_path: Path):
    document = write(tmp_path / "a", "x")
    document.path.unlink()
    with pytest.raises(
        DataError, match=rf"^text must be readable, but got {document.path}: No such file or directory\.$"
    ):
        fingerprint([document])
