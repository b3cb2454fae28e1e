"""The token cache: it gives back what was put in, or makes it again."""

from pathlib import Path

import numpy as np
import pytest

from training.data import cache

IDS = np.arange(1000)


def kept(key: str = "key", vocab_size: int = 1000) -> tuple[np.ndarray, int]:
    """What the cache gives, and how often it had to be made."""
    made = []

    def make():
        made.append(1)
        yield IDS[:400]
        yield IDS[400:]

    return cache.kept(key, vocab_size, make), len(made)


def test_makes_ids_once():
    first, second = kept(), kept()
    assert (first[1], second[1]) == (1, 0)
    assert (first[0] == IDS).all()
    assert (second[0] == IDS).all()
    assert isinstance(second[0], np.memmap)


def test_other_keys_have_other_ids():
    assert [kept("a")[1], kept("b")[1], kept("a")[1]] == [1, 1, 0]


def test_ids_are_as_small_as_the_vocabulary_allows():
    assert kept(vocab_size=1 << 16)[0].dtype == np.uint16
    assert kept(vocab_size=(1 << 16) + 1)[0].dtype == np.uint32


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:100] + b"\x00" + c[101:], lambda c: b"", lambda c: c[2:]]
)
def test_a_damaged_file_is_made_again(cache: Path, damage):
    kept()
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    ids, made = kept()
    assert made == 1
    assert (ids == IDS).all()
    assert file.read_bytes() == content


def test_leaves_nothing_behind_when_making_fails(cache: Path):
    import training.data.cache

    def fail():
        yield IDS
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match=r"^no more$"):
        training.data.cache.kept("key", 1000, fail)
    assert list(cache.iterdir()) == []


def test_nothing_can_be_kept():
    assert len(cache.kept("none", 10, lambda: [])) == 0
    assert len(cache.kept("none", 10, lambda: [])) == 0


def test_goes_on_without_a_folder_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BLOCKWRIGHT_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.warns(UserWarning, match=r"^tokens are not cached: .*inside can not be written \(Not a directory\)\. "):
        ids, _ = kept()
    assert (ids == IDS).all()


def test_the_folder_follows_the_desktop_standard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("BLOCKWRIGHT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/blockwright")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "blockwright"
