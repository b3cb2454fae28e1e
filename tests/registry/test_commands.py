"""Holds ``python -m registry`` to: every name is told about, and a new file works as it stands."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry import REGISTRY, ConfigError, factory
from registry.__main__ import main
from registry.compose import launch
from registry.compose.launch import versions
from registry.new import template
from registry.plugins import ROOT, VARIABLE, load, load_one
from registry.show import grids, overview, page
from training.laws.compositions import data_of

load()
ALL = REGISTRY.names()
OWN = "A block of your own must be named by its file (./my_block.py), or be listed in BLOCKWRIGHT_PLUGINS."
NEW = (
    "new: a family and a name must be given, as in new attention my_attention, and at most a block to start from, as "
    "in new attention my_attention like gqa, but got"
)


def test_list_tells_of_every_name(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out.split()
    assert {REGISTRY[n].short for n in ALL} <= set(said)


def test_list_reads_our_files_and_imports_none_of_them(capsys):
    """Importing torch takes seconds, and the names are what is asked for."""
    code = "import sys; from registry.__main__ import main; main(['list']); assert 'torch' not in sys.modules"
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    read = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert main(["list"]) == 0
    assert read.stdout.decode() == capsys.readouterr().out


def test_list_knows_the_names_of_plugins(tmp_path, monkeypatch, capsys):
    file = tmp_path / "listed.py"
    file.write_text(template("norm", "listed_norm"), encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(file))
    assert main(["list", "norm"]) == 0
    assert "listed_norm" in capsys.readouterr().out


def test_list_can_say_what_the_blocks_of_a_family_can_do(capsys):
    assert main(["list", "recurrent", "--abilities"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("recurrent  (mixer=...)\n")
    assert "[causal, both ways, constant state]" in " ".join(said.split())


def test_show_tells_choices_sources_cost_and_use(capsys):
    assert main(["show", "attention/gqa"]) == 0
    said = capsys.readouterr().out
    for part in ("attention/gqa: ", "Choices", "n_kv_heads", "Sources", "https://", "Cost of 1024 tokens", "Use"):
        assert part in said
    assert "python train.py attention=gqa attention.n_heads=8" in said


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("position/dependency", "model=encoder_only position=dependency position.reach=8 data.trees=nesting"),
        ("position/alibi", "position=alibi"),
        ("position/sinusoidal", "position=sinusoidal position.base=10000.0"),
        ("attention/nystrom", "model=encoder_only attention=nystrom attention.n_heads=8"),
    ],
)
def test_the_command_of_a_page_has_what_the_block_needs(name, command):
    assert page(REGISTRY[name]).splitlines()[-1] == f"  python train.py {command}"


@pytest.mark.parametrize("name", ALL)
def test_every_name_has_a_page(name):
    assert page(REGISTRY[name]).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["lst"],
            "no command is named 'lst'. Did you mean 'list'? There are: list, show, new, check, matrix, profile.",
        ),
        (["show", "gqqa"], f"show: no block is named 'gqqa'. Did you mean 'gqa'? {OWN}"),
        (["show"], "show: a name or a file must be given, as in show attention/gqa."),
        (["new", "attention"], f"{NEW} 'attention'."),
        (["new", "attention", "my_x", "like"], f"{NEW} 'attention my_x like'."),
        (["new", "attention", "my_x", "as", "gqa"], f"{NEW} 'attention my_x as gqa'."),
        (
            ["new", "attention", "class"],
            "new: a name must not be a keyword of Python, but got 'class'. Pick another name.",
        ),
        (["new", "norm", "true"], "new: a name must not be a keyword of Python, but got 'true'. Pick another name."),
        (
            ["new", "norm", "auto"],
            "new: a block must not be called 'auto': it leaves the choice to the blocks. Got 'norm/auto'.",
        ),
        (["new", "norm", "Mine"], "new: a name must be lower-case letters, digits and underscores, but got 'Mine'."),
        (["check"], "check: a name or a file must be given, as in check ./my_block.py."),
        (["check", "gru", "--with"], "check: --with must be followed by how many compositions are drawn, but got ''."),
        (["check", "gruu"], f"check: no block is named 'gruu'. Did you mean 'gru'? {OWN}"),
        *(
            (
                [command, "norm"],
                f"{command}: what is named must be a block or a file, but 'norm' is a family. Name one of its blocks, "
                f"as in {command} norm/dynamic_tanh; list norm prints them.",
            )
            for command in ("check", "show", "matrix", "profile")
        ),
    ],
)
def test_a_mistake_is_said(capsys, words, sentence):
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize("family", REGISTRY.families())
def test_a_new_file_registers_a_block_that_works(family, tmp_path):
    name = f"new_{family}"
    file = tmp_path / f"{name}.py"
    file.write_text(template(family, name), encoding="utf-8")
    load_one(str(file))
    entry = REGISTRY[f"{family}/{name}"]
    assert entry.constructor.__name__ == f"New{family.capitalize()}"
    old = [REGISTRY[n] for n in ALL if REGISTRY[n].family == family]
    assert any(entry.facts == e.facts for e in old)
    for choice in entry.choices.values():
        assert choice.doc


SLOTS = {
    **dict.fromkeys(("linear", "recurrent", "convolution"), "mixer={}"),
    **{"score": "attention.score={}", "normaliser": "attention.normaliser={}"},
    **{"callback": "callbacks=[{}]", "logger": "logger=[{}]"},
}
"""The word that chooses a block of a family, where it is not the family's name."""


@pytest.mark.parametrize("family", REGISTRY.families())
def test_a_new_file_works_in_the_default_model(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(template(family, f"mine_{family}"), encoding="utf-8")
    built = []

    def build(job):
        data_of(job.spec, 0)
        built.append(factory(job.spec["model"], ("model",), "model", job.origins)(256))
        return job.record()

    words = ["plugins=[./mine.py]", SLOTS.get(family, f"{family}={{}}").format(f"mine_{family}")]
    assert launch(build, len, words) == 0
    assert len(built) == 1


def test_the_class_of_a_new_file_has_a_name_of_its_own():
    assert "class ReadingAttention(Attention[Past]):" in template("attention", "reading")
    assert "class LinearHead(Head):" in template("head", "linear_head", "linear")


@pytest.mark.parametrize("words", [["gqa"], ["like", "gqa"]])
def test_a_new_file_is_like_the_block_that_is_named(words, capsys):
    assert main(["new", "attention", "my_x", *words]) == 0
    said = capsys.readouterr().out
    assert '@register("attention/my_x", n_kv_heads=2, score="scaled_dot", normaliser="softmax")\nclass MyX(' in said


GENERIC = {"text", "learned", "tensorboard", "linear", "sum", "tied"}
"""Names that are also words for something else."""


def test_no_message_of_a_block_names_the_block():
    """A copy by ``new`` would speak of its original."""
    names: dict[Path, set[str]] = {}
    for entry in map(REGISTRY.__getitem__, ALL):
        found = {entry.short, entry.short.replace("_", " "), entry.constructor.__name__} - GENERIC
        names.setdefault(Path(inspect.getfile(entry.constructor)), set()).update(found)
    said = []
    for file, words in names.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            if isinstance(node, ast.Raise) or (called and called.startswith(("must_", "require_", "refuse_"))):
                texts = (c.value for c in ast.walk(node) if isinstance(c, ast.Constant))
                text = " ".join(t for t in texts if isinstance(t, str))
                advice = re.sub(r"\b\w+=\S+", "", text)
                said += [f"{file}:{node.lineno}: {w}" for w in words if re.search(rf"\b{w}\b", advice)]
    assert said == []


def test_a_new_file_can_start_from_any_block(tmp_path):
    text = template("norm", "normed_like_layer", "layer")
    assert '@register("norm/normed_like_layer")\nclass NormedLikeLayer(' in text
    assert "norm/layer" not in text


def test_a_taken_name_is_not_new():
    with pytest.raises(ConfigError, match=r"^new: norm/rms is taken, by .*rms.py:\d+. Pick another name.$"):
        template("norm", "rms")


def test_the_readme_s_new_attention_trains_as_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "attention", "my_attention"]) == 0
    Path("my_attention.py").write_text(capsys.readouterr().out, encoding="utf-8")
    specs = []
    words = ["plugins=[./my_attention.py]", "attention=my_attention", "attention.width=32"]
    assert launch(lambda job: specs.append(job.spec) or job.record(), len, words) == 0
    mixer = specs[0]["model"]["decoder"]["layers"][0]["mixer"]
    assert (mixer["name"], mixer["width"]) == ("attention/my_attention", 32)


def test_check_runs_the_laws_on_a_file_a_line_a_law(tmp_path, capsys):
    file = tmp_path / "my_norm.py"
    file.write_text(template("norm", "checked_norm"), encoding="utf-8")
    assert main(["check", str(file)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "all laws hold"
    assert any(line.startswith("ok       norm/checked_norm  ") for line in lines)


def test_a_name_in_full_that_is_misspelt_is_a_name(capsys):
    assert main(["check", "norm/rmss"]) == 2
    assert capsys.readouterr().err.startswith("error: check: no block is named 'norm/rmss'. Did you mean 'norm/rms'? ")


def test_check_fails_on_a_block_that_breaks_a_law(tmp_path, capsys):
    file = tmp_path / "broken_norm.py"
    text = template("norm", "broken_norm").replace("return ", "return 1 + x.mean(0, keepdim=True) + ")
    file.write_text(text, encoding="utf-8")
    assert main(["check", str(file)]) == 1
    assert "BROKEN " in capsys.readouterr().out


RAISES = """
from blocks.contracts import Norm
from registry import register


@register("norm/{name}")
class Raises(Norm):
    '''Ends in an error.

    Args:
        eps: Added.
    '''

    def __init__(self, d_model: int, /, *, eps: float = 1e-5) -> None:
        super().__init__(d_model)
        self.eps = eps
        {built}

    def forward(self, x):
        return self.missing(x) + self.eps
"""


def checked(file, *more):
    """A check in a process of its own: torch keeps the stderr of the first test for its logs."""
    words = [sys.executable, "-m", "registry", "check", str(file), *more]
    quiet = {"PYTHONWARNINGS": "ignore:Guards may run slower on Python 3.13.0:RuntimeWarning"}  # as in pyproject.toml
    return subprocess.run(words, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True)


def test_what_a_block_raises_is_a_verdict_with_a_line_of_its_file(tmp_path):
    file = tmp_path / "raises.py"
    file.write_text(RAISES.format(name="raises", built=""), encoding="utf-8")
    done = checked(file, "--with", "1")
    assert (done.returncode, done.stderr) == (1, "")
    *lines, last = done.stdout.splitlines()
    broken = [line for line in lines if line.startswith("BROKEN ")]
    assert last == f"{len(broken)} broken"
    says = f"AttributeError at {file}:20: 'Raises' object has no attribute 'missing'"
    assert [line for line in broken if not line.endswith(f": {says}")] == []
    assert any(": compiles: " in line for line in broken)
    assert any(line.partition(" of model=")[2] for line in broken)
    assert f"BROKEN   norm/raises  eps: every choice has an effect: {says}" in broken


@pytest.mark.parametrize(
    ("built", "kind"),
    [
        ("self.norm = Norm()", "TypeError"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_what_a_constructor_raises_is_a_verdict(built, kind, tmp_path, capsys):
    file = tmp_path / "raises_when_built.py"
    file.write_text(RAISES.format(name="raises_when_built", built=built), encoding="utf-8")
    assert main(["check", str(file), "--with", "1"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == f"{len(lines)} broken"
    text = {"TypeError": "Norm.__init__() missing 1 required positional argument: 'd_model'", "SystemExit": "3"}[kind]
    says = f"{kind} at {file}:17: {text}"
    assert lines[0] == f"BROKEN   norm/raises_when_built  raises_when_built: is built: {says}"
    assert all(line.endswith(f": {says}") for line in lines)


def test_an_annotation_without_a_meaning_is_a_verdict(tmp_path, capsys):
    file = tmp_path / "without_meaning.py"
    text = RAISES.format(name="without_meaning", built="").replace("eps: float", "eps: 'Nothing'")
    file.write_text(text, encoding="utf-8")
    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(" broken")


def test_show_takes_files(tmp_path, capsys):
    file = tmp_path / "shown_norm.py"
    file.write_text(template("norm", "shown_norm"), encoding="utf-8")
    for _ in range(2):  # the second time it is there already
        assert main(["show", str(file)]) == 0
        assert capsys.readouterr().out.startswith("norm/shown_norm: ")


@pytest.mark.parametrize("command", ["check", "show", "matrix", "profile"])
def test_a_file_that_is_not_there_is_said_by_the_command(command, tmp_path, capsys):
    assert main([command, f"{tmp_path}/nope.py"]) == 2
    file = f"{tmp_path}/nope.py"
    assert capsys.readouterr().err == f"error: {command}: there is no file {file!r} ({file}).\n"


@pytest.mark.parametrize("command", ["matrix", "profile"])
def test_a_block_of_ones_own_is_named_as_the_command_takes_it(command, capsys):
    assert main([command, "nope"]) == 2
    assert capsys.readouterr().err.endswith(f". {OWN}\n")


def test_bytes_that_are_no_python_are_one_line(tmp_path, capsys):
    file = tmp_path / "bytes.py"
    file.write_bytes(b"x = \x1b[31m\x0b\x1c\xe2\x80\xa8" + 300 * b"y" + b"\r\n")
    assert main(["check", str(file)]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"error: check: {file}:1 must be Python, but got: invalid non-printable character U+001B "
        f"(x = \\x1b[31m {187 * 'y'}...).\n"
    )


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"], ["check", "--help"]], ids=shlex.join)
def test_help_is_printed(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("What is there, what it can do, and a start for what is not there yet.\n")


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{versions()}\n"


def test_a_block_without_a_docstring_is_listed_too(monkeypatch):
    for columns in ("40", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        nameless = SimpleNamespace(name="norm/quiet", family="norm", short="quiet", doc="")
        assert overview(["norm"], [nameless]) == "norm  (norm=...)\n  quiet\n"


@pytest.mark.parametrize("columns", [40, 50, 200])
def test_text_is_as_wide_as_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    assert main(["show", "moe", "gqa", "t5"]) == 0
    assert main(["matrix", "gru"]) == 0
    assert main(["profile", "mha", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = re.compile(
        r"\.py:\d+$|attention=gqa |ffn=moe |position=t5|^ .*  (native|window)|^(mha)? .*  (peak|\d)|^ +T "
    )
    text = [line for line in lines if not table.search(line)]
    assert 30 < max(map(len, text)) <= min(columns, 120)


WIDGET = """
from registry import register


@register("widget/free")
class Free:
    '''A widget of a family of its own.'''
"""


def test_check_names_a_family_without_laws(tmp_path, capsys):
    file = tmp_path / "widget.py"
    file.write_text(WIDGET, encoding="utf-8")
    assert main(["check", str(file)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "no laws  widget/free  the family 'widget' has no laws: nothing is known of what its blocks promise.",
        "no law was broken, but 1 of 1 names are under none",
    ]
    del REGISTRY._entries["widget/free"]


def test_check_puts_a_block_into_compositions(tmp_path, capsys):
    file = tmp_path / "composed_norm.py"
    file.write_text(template("norm", "composed_norm"), encoding="utf-8")
    assert main(["check", str(file), "--with", "2"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "all laws hold"
    composed = {line.partition(" of model=")[2] for line in lines if "norm=composed_norm" in line}
    assert len(composed) >= 2


@pytest.mark.parametrize("name", ["byte", "next_token", "constant", "csv", "adamw", "early_stopping"])
def test_check_holds_what_trains_a_model_to_laws(name, capsys):
    assert main(["check", name]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "all laws hold"
    assert sum(line.startswith("ok ") for line in lines) >= 2


def test_a_file_without_a_block_can_not_be_checked(tmp_path, capsys):
    file = tmp_path / "empty.py"
    file.write_text("", encoding="utf-8")
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"error: check: {file} must register a block that is not there yet, but registers none.\n"
    )


def test_the_matrix_is_a_grid_a_slot_with_reasons(capsys):
    assert main(["matrix", "gru", "mha"]) == 0
    said = capsys.readouterr().out
    for part in ("encoder: mixer and mask", "decoder: attention and position, mask/causal", "Refused because"):
        assert part in said


def test_the_matrix_can_be_a_line_each(capsys):
    assert main(["matrix", "gru", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = "decoder  recurrent/gru  mask/causal  position/none  native  twice the tokens are 2.0 times the work"
    assert row in lines
    assert " ".join(grids([]).split()).startswith(
        "native: as cheap as its rule; dense: every pair is computed; ?: not "
    )


def test_the_matrix_and_the_profile_take_files(tmp_path, capsys):
    file = tmp_path / "profiled_attention.py"
    file.write_text(template("attention", "profiled_attention"), encoding="utf-8")
    assert main(["matrix", str(file)]) == 0
    assert "profiled_attention" in capsys.readouterr().out
    other = tmp_path / "profiled_other.py"
    other.write_text(template("attention", "profiled_other"), encoding="utf-8")
    assert main(["profile", str(other), "swiglu", "mha+window", "8", "16"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:7]]
    assert [row[:2] for row in rows] == [
        [name, n] for name in ("attention/profiled_other", "swiglu", "mha+window") for n in ("8", "16")
    ]
    assert rows[0][2:5] == ["16,384", "278,528", "1"]  # 4 products of 64 x 64, and 2 of 8 x 8 x 64, a multiply-add two
    assert rows[0][6:9] == ["1", "1", f"{9 * (2 * 64 * 4 + 16) + 8:,}"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ffn/none"], "profile: ffn/none must be a block that costs something, but it stands for none."),
        (["8"], "profile: a block or a file and lengths of at least 1 must be given, as in profile mha 256."),
        (
            ["swiglu+window"],
            "profile: swiglu+window must be a feed-forward without a mask, but got +window. Leave it out.",
        ),
    ],
)
def test_a_profile_that_can_not_be_made_is_refused(capsys, words, sentence):
    assert main(["profile", *words]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
