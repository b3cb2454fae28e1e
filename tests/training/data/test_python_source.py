"""The standard library as data: which files, in which part, always the same."""

import ast
import shutil
from pathlib import Path

import pytest

from registry.errors import DataError
from training.data.documents import Document
from training.data.python_source import PythonSource
from training.objective.next_token import NextToken
from training.tokenizer.byte import Byte


def source(**choices) -> PythonSource:
    tokenizer = Byte()
    return PythonSource(tokenizer, NextToken(tokenizer, 64, "decoder", "text"), 64, 0, **choices)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small one, with everything in it that must be left out."""
    for name in [*(f"module{i}.py" for i in range(40)), "package/inner.py", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n" * 10, encoding="utf-8")
    for folder in ("test", "package/tests", "site-packages", "lib2to3", "__pycache__", "encodings"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "left_out.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "latin1.py").write_bytes(b"# na\xefve\n")
    (tmp_path / "empty.py").touch()
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    return tmp_path


def names(documents: list[Document], root: Path) -> set[str]:
    return {d.path.relative_to(root).as_posix() for d in documents}


def test_takes_every_module_once(library: Path):
    data = source()
    data.root = library
    train, val = data.documents()
    assert names(train, library) | names(val, library) == {*(f"module{i}.py" for i in range(40)), "package/inner.py"}
    assert len(train) + len(val) == 41


def test_a_file_is_on_the_same_side_wherever_the_library_is(library: Path, tmp_path: Path):
    data = source()
    data.root = library
    before = [names(part, library) for part in data.documents()]
    data.root = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    shutil.copytree(library, data.root, symlinks=True)
    (data.root / "one_more.py").write_text("x = 1\n", encoding="utf-8")
    train, val = (names(part, data.root) - {"one_more.py"} for part in data.documents())
    assert [train, val] == before


def test_takes_no_more_than_it_is_told(library: Path):
    data = source(max_bytes=1000, val_fraction=0.3)
    data.root = library
    train, val = data.documents()
    assert 800 < sum(d.size for d in train + val) <= 1000


def test_the_real_library_is_python_and_repeats():
    data, again = source(max_bytes=500_000), source(max_bytes=500_000)
    for each in (data, again):
        each.setup()
    assert data.facts == again.facts
    assert 300_000 < data.facts["train_bytes"] + data.facts["val_bytes"] <= 500_000
    assert 2.5 < data.facts["unigram_entropy"] < 4
    for document in data.val_documents:
        ast.parse(document.read())
    assert next(data.samples())


def test_refuses_a_library_without_source(tmp_path: Path):
    data = source()
    data.root = tmp_path
    with pytest.raises(DataError) as refusal:
        data.setup()
    assert str(refusal.value) == (
        f"the standard library must have source files to train and to validate on, but got 0 and 0 from {tmp_path}. "
        "Use a larger data.max_bytes, or data=text with a path of your own."
    )


def test_refuses_to_read_nothing():
    with pytest.raises(ValueError, match=r"^max_bytes must be at least 1, or null for all, but got 0\.$"):
        source(max_bytes=0)
