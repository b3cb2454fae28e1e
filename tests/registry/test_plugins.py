"""Holds the three ways in for other people's blocks to: found once, said plainly, and never fatal by accident."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from pathlib import Path

import pytest

from registry import REGISTRY, ConfigError, plugins
from registry.errors import MachineError

FILE = '''
"""Nothing."""
from blocks.contracts import Norm
from registry import register
import {beside}


@register("norm/{name}")
class Mine(Norm):
    """Leaves the features as they are."""

    def forward(self, x):
        return x
'''


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """A folder and a search path of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv(plugins.VARIABLE, raising=False)


def written(name: str, beside: str = "math") -> Path:
    file = Path(f"{name}.py").absolute()
    file.write_text(FILE.format(name=name, beside=beside))
    return file


def test_a_file_is_found_by_its_path_once():
    file = written("norm_of_a_file")
    assert plugins.load(["./norm_of_a_file.py"]) == [str(file)]
    entry = REGISTRY["norm/norm_of_a_file"]
    assert plugins.load([str(file), "norm_of_a_file.py"]) == [str(file)]
    assert REGISTRY["norm/norm_of_a_file"] is entry


def test_a_file_may_import_what_stands_beside_it():
    Path("what_stands_beside.py").write_text("")
    written("norm_with_a_neighbour", beside="what_stands_beside")
    plugins.load(["./norm_with_a_neighbour.py"])
    assert "norm/norm_with_a_neighbour" in REGISTRY


def test_a_module_is_found_by_its_name():
    written("norm_of_a_module")
    assert plugins.load(["norm_of_a_module"]) == ["norm_of_a_module"]
    assert "norm/norm_of_a_module" in REGISTRY


def test_the_environment_names_plugins_too(monkeypatch):
    first, second = written("norm_of_env_1"), written("norm_of_env_2")
    monkeypatch.setenv(plugins.VARIABLE, f"{first}, {second}")
    assert plugins.load() == [str(first), str(second)]


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        (
            "no_such_module",
            "plugins: no module is named 'no_such_module'. A file must be named by its path (./no_such_module.py).",
        ),
        ("no.such", "plugins: no module is named 'no.such'. A file must be named by its path (./no/such.py)."),
    ],
)
def test_a_module_that_is_not_there_is_said(plugin, sentence):
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one(plugin)
    assert str(refusal.value) == sentence


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one("./nowhere.py")
    assert str(refusal.value) == f"plugins: there is no file './nowhere.py' ({Path('nowhere.py').absolute()})."


def test_a_file_that_is_no_python_is_said():
    Path("notes.txt").write_text("")
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one("./notes.txt")
    assert str(refusal.value) == "plugins: './notes.txt' must be a Python file, but its name does not end in .py."


def test_a_bug_in_a_plugin_keeps_its_traceback_and_can_be_mended():
    file = written("norm_with_a_bug", beside="a_module_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        plugins.load_one(str(file))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        plugins.load_one("norm_with_a_bug")
    written("norm_with_a_bug")
    plugins.load_one(str(file))
    assert "norm/norm_with_a_bug" in REGISTRY


def test_a_name_that_is_taken_is_refused_with_both_places():
    first, second = written("norm_taken"), Path("again.py").absolute()
    second.write_text(first.read_text())
    plugins.load_one(str(first))
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one(str(second))
    assert f"the name 'norm/norm_taken' must be free, but {first}:" in str(refusal.value)
    assert f"has it and {second}:" in str(refusal.value)


class Point:
    value = "someones.blocks"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.loaded = error, False

    def load(self) -> None:
        self.loaded = True
        if self.error:
            raise self.error


def test_blocks_of_installed_packages_are_loaded_and_a_broken_one_is_left_out(monkeypatch):
    points = [Point(ImportError("no such thing")), Point()]
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: points if group == "blockwright.blocks" else []
    )
    with pytest.warns(RuntimeWarning) as warned:
        plugins.load_installed()
    assert [str(w.message) for w in warned] == [
        "the blocks of 'someones.blocks' are left out: importing them ended with ImportError: no such thing"
    ]
    assert points[1].loaded


def test_a_package_of_another_project_is_told_from_ours(monkeypatch):
    other = types.ModuleType("blocks")
    other.__file__ = "/somewhere/else/blocks/__init__.py"
    monkeypatch.setitem(sys.modules, "blocks", other)
    with pytest.raises(MachineError) as refusal:
        plugins.load_builtin()
    assert str(refusal.value) == (
        f"blocks: the package must be Blockwright's ({plugins.ROOT / 'blocks' / '__init__.py'}), but "
        "/somewhere/else/blocks/__init__.py comes first on the path. Take its folder off Python's path, or rename it."
    )
