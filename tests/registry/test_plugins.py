"""Holds the three ways in for other people's blocks to: found once, said plainly, and never fatal by accident."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import types
from pathlib import Path

import pytest

from registry import REGISTRY, ConfigError, plugins
from registry.__main__ import main
from registry.compose import launch
from registry.compose.launch import recorded_words
from registry.errors import MachineError
from training.results import write_json

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
    file.write_text(FILE.format(name=name, beside=beside), encoding="utf-8")
    return file


def test_a_file_is_found_by_its_path_once():
    file = written("norm_of_a_file")
    assert plugins.load(["./norm_of_a_file.py"]) == [str(file)]
    entry = REGISTRY["norm/norm_of_a_file"]
    assert plugins.load([str(file), "norm_of_a_file.py"]) == [str(file)]
    assert REGISTRY["norm/norm_of_a_file"] is entry


def test_a_file_may_import_what_stands_beside_it():
    Path("what_stands_beside.py").write_text("", encoding="utf-8")
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
    Path("notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one("./notes.txt")
    assert str(refusal.value) == "plugins: './notes.txt' must be a Python file, but its name does not end in .py."


def test_each_plugin_has_its_own_neighbours():
    """Two folders may hold helpers of one name; a late import finds the right one, too."""
    for folder in ("one", "two"):
        Path(folder, "parts").mkdir(parents=True)
        Path(folder, "helpers.py").write_text(f"import more\nWHO = '{folder}'", encoding="utf-8")
        Path(folder, "more.py").write_text(f"WHO = 'more of {folder}'", encoding="utf-8")
        Path(folder, "parts", "__init__.py").write_text("", encoding="utf-8")
        Path(folder, "parts", "inner.py").write_text(f"WHO = 'inner of {folder}'", encoding="utf-8")
        Path(folder, "loose").mkdir()
        Path(folder, "loose", "thing.py").write_text(f"WHO = 'thing of {folder}'", encoding="utf-8")
        file = written(f"norm_{folder}", beside="parts.inner, helpers as h, loose.thing as t, os.path")
        file = file.rename(Path(folder, file.name).absolute())
        with file.open("a") as text:
            text.write(
                "\nfrom helpers import WHO\n\ndef late():\n    import more\n    return more.WHO\n"
                "FOUND = [WHO, h.more.WHO, parts.inner.WHO, late(), t.WHO, os.path.sep]\n"
            )
    before = list(sys.path)
    for folder in ("one", "two", "one"):
        plugins.load_one(f"./{folder}/norm_{folder}.py")
        found = sys.modules[REGISTRY[f"norm/norm_{folder}"].constructor.__module__].FOUND
        more = f"more of {folder}"
        assert found == [folder, more, f"inner of {folder}", more, f"thing of {folder}", "/"]
    assert "helpers" not in sys.modules
    assert sys.path == before


def test_names_of_the_standard_library_and_of_this_project_mean_these():
    for name in ("random", "blocks", "statistics", "norm_apart"):
        Path(f"{name}.py").write_text("raise AssertionError('the neighbour was imported')", encoding="utf-8")
    written("norm_apart", beside="random, statistics, norm_apart")
    plugins.load_one("./norm_apart.py")


def test_the_same_file_is_one_plugin_by_whatever_route_it_comes():
    Path("shared_beside.py").write_text(FILE.format(name="norm_beside", beside="math"), encoding="utf-8")
    file = written("norm_by_routes", beside="shared_beside")
    Path("link.py").symlink_to(file)
    assert plugins.load_one("norm_by_routes") == "norm_by_routes"
    entry = REGISTRY["norm/norm_by_routes"]
    for route in ("./norm_by_routes.py", str(file), "./link.py"):
        assert plugins.load_one(route) == str(file)
    assert REGISTRY["norm/norm_by_routes"] is entry
    plugins.load_one("./shared_beside.py")

    other = written("norm_by_path", beside="shared_beside")  # its neighbour registers a block that is there already
    assert plugins.load_one(str(other)) == plugins.load_one("norm_by_path") == str(other)
    assert "norm_by_path" not in sys.modules


def test_a_file_of_an_importable_package_is_its_module(monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    Path("somepack", "deep").mkdir(parents=True)
    Path("somepack", "__init__.py").write_text("", encoding="utf-8")
    Path("somepack", "deep", "__init__.py").write_text("from . import norm_in_pack", encoding="utf-8")
    written("norm_in_pack").rename(Path("somepack", "deep", "norm_in_pack.py"))
    plugins.load_one("./somepack/deep/norm_in_pack.py")
    assert REGISTRY["norm/norm_in_pack"].constructor.__module__ == "somepack.deep.norm_in_pack"


def with_head(name: str, head: str) -> Path:
    file = written(name)
    file.write_text(file.read_text(encoding="utf-8").replace("import math", head), encoding="utf-8")
    return file


def test_a_relative_import_finds_what_stands_beside_a_file_or_in_its_package():
    Path("close_by.py").write_text("WHO = 1", encoding="utf-8")
    with_head("norm_relative", "from . import close_by; from .close_by import WHO")
    plugins.load_one("./norm_relative.py")
    Path("pack_apart", "sub").mkdir(parents=True)
    Path("pack_apart", "__init__.py").write_text("ROOT = 2", encoding="utf-8")
    Path("pack_apart", "sub", "__init__.py").write_text("", encoding="utf-8")
    Path("pack_apart", "sub", "helper_apart.py").write_text("from pack_apart import ROOT", encoding="utf-8")
    with_head("norm_in_package", "from .. import ROOT; from .helper_apart import ROOT; import helper_apart").rename(
        Path("pack_apart", "sub", "norm_in_package.py")
    )
    plugins.load_one("./pack_apart/sub/norm_in_package.py")
    assert "norm/norm_in_package" in REGISTRY
    assert "pack_apart" not in sys.modules


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        ("from .. import beyond", "import from its own package"),
        ("from .nothing import here", "import what is there"),
        ("from . import nothing", "import what is there"),
    ],
)
def test_a_relative_import_of_what_is_not_there_is_said_with_file_and_line(head, rule):
    file = with_head("norm_astray", head)
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one("./norm_astray.py")
    assert str(refusal.value) == (
        f"plugins: {file}:5 must {rule}, but got `{head}`. What stands in the folder of a plugin, or in its package, "
        "can be imported."
    )


def test_what_is_not_python_is_said_with_file_and_line():
    file = with_head("norm_misspelt", "improt math")
    for route in ("./norm_misspelt.py", "norm_misspelt"):
        with pytest.raises(ConfigError) as refusal:
            plugins.load_one(route)
        assert str(refusal.value) == f"plugins: {file}:5 must be Python, but got: invalid syntax (improt math)."
    for content in (b"x = '\xff'", b"x = 1\0"):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=f"^plugins: {file}.* must be Python, but got: "):
            plugins.load_one("./norm_misspelt.py")


CHOICES = """    def __init__(self, d_model: "Nowhere", /, *, side: Side = Side.LEFT, size: "Size" = 1) -> None:
        super().__init__(d_model)

"""


def test_names_for_type_checkers_are_looked_up():
    Path("kinds_beside.py").write_text(
        "import enum\nSize = int\nclass Side(enum.Enum):\n    LEFT = 'left'\n", encoding="utf-8"
    )
    head = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom kinds_beside import Side\n"
        "if TYPE_CHECKING:\n    from kinds_beside import Size\n    from nowhere import Nowhere"
    )
    file = with_head("norm_typed", head)
    text = file.read_text(encoding="utf-8").replace("    def forward", CHOICES + "    def forward")
    file.write_text(text.replace("from blocks", "", 1).replace(".contracts import Norm", "", 1), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").replace(head, "").splitlines()
    file.write_text("\n".join([head, "from blocks.contracts import Norm", *lines]), encoding="utf-8")
    plugins.load_one("./norm_typed.py")
    choices = REGISTRY["norm/norm_typed"].choices
    assert choices["size"].type is int
    assert REGISTRY.complete("norm/norm_typed") == {"name": "norm/norm_typed", "side": "left", "size": 1}

    file = Path("norm_typed_astray.py").absolute()
    file.write_text(
        Path("norm_typed.py")
        .read_text(encoding="utf-8")
        .replace("norm_typed", file.stem)
        .replace('"Size"', '"Nowhere"'),
        encoding="utf-8",
    )
    plugins.load_one(str(file))
    with pytest.raises(ConfigError) as refusal:
        REGISTRY.complete("norm/norm_typed_astray")
    line = REGISTRY["norm/norm_typed_astray"].where
    assert str(refusal.value) == (
        f"{line}: the annotation of 'size' must have a meaning when the program runs, but \"'Nowhere'\" ends with "
        "NameError: name 'Nowhere' is not defined. Import its names where they can be imported, outside "
        "`if TYPE_CHECKING:`."
    )


def test_the_sources_of_plugins_are_known_and_a_change_is_said():
    Path("beside_by_file.py").write_text("import beside_of_beside", encoding="utf-8")
    Path("beside_of_beside.py").write_text("", encoding="utf-8")
    Path("beside_unused.py").write_text("", encoding="utf-8")
    by_file = written("norm_hashed", beside="beside_by_file, beside_of_beside")
    by_name = written("norm_hashed_by_name", beside="beside_by_file")
    loaded = plugins.load(["./norm_hashed.py"])
    names = [by_file.name, "beside_by_file.py", "beside_of_beside.py"]
    expected = {str(Path(n).absolute()): hashlib.sha256(Path(n).read_bytes()).hexdigest() for n in names}
    assert plugins.sources(loaded) == expected
    assert set(plugins.sources(plugins.load(["norm_hashed_by_name"]))) == {str(by_name), *list(expected)[1:]}

    assert plugins.changed(expected, plugins.on_disk(expected)) == []
    Path("beside_by_file.py").write_text("x = 1", encoding="utf-8")
    now = hashlib.sha256(b"x = 1").hexdigest()
    file = str(Path("beside_by_file.py").absolute())
    assert plugins.changed(expected, plugins.on_disk(expected)) == [
        f"plugins: the source of {file} is not what was recorded: its SHA-256 is {now[:12]}, and was "
        f"{expected[file][:12]}."
    ]
    assert plugins.sources(loaded) == expected, "what was imported counts, not what the file holds by now"


def test_a_rerun_says_that_a_plugin_has_changed(capsys):
    file = Path("norm_rerun.py").absolute()
    file.write_text("x = 2", encoding="utf-8")
    recorded = hashlib.sha256(b"x = 1").hexdigest()
    write_json(Path("run.json"), {"name": "a", "overrides": ["seed=2"], "plugin_sources": {str(file): recorded}})
    assert [word.typed for word in recorded_words(Path("."))] == ["seed=2"]
    now = hashlib.sha256(b"x = 2").hexdigest()
    assert capsys.readouterr().err == (
        f"plugins: the source of {file} is not what was recorded: its SHA-256 is {now[:12]}, and was {recorded[:12]}.\n"
    )


def test_a_path_that_is_not_utf_8_is_a_path(capsys, monkeypatch):
    folder = Path(os.fsdecode(b"f\xff\xe9")).absolute()
    folder.mkdir()
    folder.joinpath("bytes_beside.py").write_text("", encoding="utf-8")
    file = written("norm_of_bytes", beside="bytes_beside").rename(folder / os.fsdecode(b"n\xe9.py"))
    assert plugins.load([f"./{folder.name}/{file.name}"]) == [str(file)]
    monkeypatch.setenv(plugins.VARIABLE, str(file))
    assert main(["show", "norm/norm_of_bytes"]) == 0
    assert "\\udcff\\udce9" in capsys.readouterr().out

    write_json(Path("run.json"), {"plugins": plugins.sources([str(file)])})
    assert list(json.loads(Path("run.json").read_text(encoding="utf-8"))["plugins"]) == sorted(
        map(str, (file, folder / "bytes_beside.py"))
    )


@pytest.mark.parametrize(
    ("head", "got"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit()", "SystemExit"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two' + chr(10) + 'lines' + chr(27))", "ValueError: two lines\\x1b"),
        ("import json; json.loads('')", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ("eval('1 +')", "SyntaxError: invalid syntax (<string>, line 1)"),
    ],
)
def test_what_keeps_a_plugin_from_being_imported_is_said_with_file_and_line(head, got, capsys):
    file = with_head("norm_that_fails", head)
    sentence = f"{file}:5 must be imported without an error, but got {got}. Mend the file."
    for route in ("./norm_that_fails.py", "norm_that_fails"):
        with pytest.raises(ConfigError) as refusal:
            plugins.load_one(route)
        assert str(refusal.value) == f"plugins: {sentence}"
    assert launch(lambda job: job.record(), len, ["plugins=[./norm_that_fails.py]"]) == 2
    assert main(["check", "./norm_that_fails.py"]) == 2
    assert capsys.readouterr().err == f"error: plugins: {sentence}\nerror: check: {sentence}\n"


def test_the_line_of_a_neighbour_that_fails_is_named():
    Path("fails_beside.py").write_text("\n\nx = {}['key']\n", encoding="utf-8")
    written("norm_beside_a_failure", beside="fails_beside")
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one("./norm_beside_a_failure.py")
    assert str(refusal.value) == (
        f"plugins: {Path('fails_beside.py').absolute()}:3 must be imported without an error, but got KeyError: 'key'. "
        "Mend the file."
    )


def test_a_package_that_fails_is_said_where_its_module_is_named():
    Path("pack_that_fails").mkdir()
    file = Path("pack_that_fails", "__init__.py").absolute()
    file.write_text("1 / 0", encoding="utf-8")
    with pytest.raises(ConfigError) as refusal:
        plugins.load_one("pack_that_fails.norm_within")
    assert str(refusal.value) == (
        f"plugins: {file}:1 must be imported without an error, but got ZeroDivisionError: division by zero. "
        "Mend the file."
    )


def test_ctrl_c_during_an_import_is_no_mistake_of_the_plugin():
    with_head("norm_interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugins.load_one("./norm_interrupted.py")


def test_a_plugin_that_failed_can_be_mended():
    file = written("norm_with_a_bug", beside="a_module_that_is_not_there")
    with pytest.raises(ConfigError, match="a_module_that_is_not_there"):
        plugins.load_one(str(file))
    written("norm_with_a_bug")
    plugins.load_one(str(file))
    assert "norm/norm_with_a_bug" in REGISTRY


def test_a_name_that_is_taken_is_refused_with_both_places():
    first, second = written("norm_taken"), Path("again.py").absolute()
    second.write_text(first.read_text(encoding="utf-8"), encoding="utf-8")
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
