"""A record is written whole or not at all, and read again as it was."""

import json
import re
import subprocess

import pytest

from registry.errors import CheckpointError
from training.results import Record, git_state, read_record, read_records, versions, write_json, write_whole


def test_a_record_is_read_again_as_it_was_written(tmp_path):
    record = Record(
        name="a", status="done", spec={"model": {"d_model": 8}}, metrics={"best": {"val/loss": 1.5}}, seed=3
    )
    record.save(tmp_path)
    assert read_record(tmp_path) == record


def test_numbers_that_json_has_not_become_null(tmp_path):
    write_json(tmp_path / "x.json", {"loss": float("nan"), "bound": [float("inf"), 1.0]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"loss": None, "bound": [None, 1.0]}


def test_a_write_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old", encoding="utf-8")

    def breaks(file):
        file.write(b"half of the n")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        write_whole(path, breaks)
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_fields_of_a_later_version_are_passed_over(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"name": "a", "invented": 1}), encoding="utf-8")
    assert read_record(tmp_path) == Record(name="a")


def test_folders_without_a_record_are_passed_over(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    Record(name="a").save(tmp_path / "a")
    (tmp_path / "b" / "run.json").write_text("{", encoding="utf-8")
    assert [r.name for r in read_records(sorted(tmp_path.iterdir()))] == ["a"]


def test_a_folder_without_a_record_is_refused_by_name(tmp_path):
    sentence = f"{tmp_path} must be the folder of a run, but there is no run.json in it."
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}$"):
        read_record(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"status": "done"}', "\x00"])
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(tmp_path / 'run.json'))} must be the record of a run"):
        read_record(tmp_path)


def test_the_versions_that_matter_are_named():
    assert {"python", "torch", "lightning", "hydra-core", "numpy"} <= versions().keys()


def test_the_commit_is_known_and_whether_files_differ(tmp_path):
    assert git_state(tmp_path) == {}

    def git(*words):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "code.py").write_text("a = 1\n", encoding="utf-8")
    git("add", "code.py")
    git("commit", "-m", "first")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "code.py").write_text("a = 2\n", encoding="utf-8")
    assert git_state(tmp_path)["dirty"] is True
