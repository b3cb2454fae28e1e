"""The rules of the house: who may import whom, and where a name lives."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import blocks
import registry
from registry import REGISTRY
from registry.plugins import load_builtin

ROOT = Path(__file__).parents[1]
FLOORS = ["registry", "blocks", "training", "train"]  # a floor stands on those before it
OURS = ROOT / "registry", ROOT / "blocks", ROOT / "training", ROOT / "train.py"
FILES = [f for top in OURS for f in ([top] if top.is_file() else sorted(top.rglob("*.py")))]

KEEPERS = {  # the only places that may import these packages
    "hydra": {"registry/compose/hydra.py"},
    "omegaconf": {"registry/compose/hydra.py", "registry/compose/values.py"},
    "lightning": {"training"},
}
SHARED = {  # what a family may use of the other blocks
    "blocks.contracts",
    "blocks.functional",
    "blocks.lines",
    "blocks.projection",
}

load_builtin()


def imports(file: Path, lazy: bool = True) -> list[tuple[str, int]]:
    """Modules that a file imports, with the line; without ``lazy``, only those it imports at once."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else tree.body
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node.lineno))
    return found


def where(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=where)
def test_imports_point_down(file):
    floor = FLOORS.index(Path(where(file)).parts[0].removesuffix(".py"))
    lazy_allowed = where(file).startswith("registry/")  # the commands reach up when they run, never when imported
    for name, line in imports(file, lazy=not lazy_allowed):
        top = name.partition(".")[0]
        assert top not in FLOORS[floor + 1 :], f"{where(file)}:{line} imports {name}, which stands on a higher floor"
        if top in KEEPERS:
            kept = any(where(file) == k or where(file).startswith(f"{k}/") for k in KEEPERS[top])
            assert kept, f"{where(file)}:{line} imports {name}, which only {', '.join(sorted(KEEPERS[top]))} may"
        if floor == 0:
            assert top not in ("torch", "lightning", "numpy"), f"{where(file)}:{line} imports {name} on floor 0"


NO_FAMILIES = (ROOT / "blocks", ROOT / "blocks" / "laws")  # the laws try the blocks of every family
FAMILY_FILES = [f for f in FILES if where(f).startswith("blocks/") and f.parent not in NO_FAMILIES]


@pytest.mark.parametrize("file", FAMILY_FILES, ids=where)
def test_families_meet_only_in_the_contracts(file):
    family = f"blocks.{file.parent.name}"
    for name, line in imports(file):
        fine = not name.startswith("blocks") or name in SHARED or name == family or name.startswith(f"{family}.")
        assert fine, f"{where(file)}:{line} imports {name}; families get each other as factories"


def test_a_name_is_a_path():
    for name in REGISTRY.names():
        entry = REGISTRY[name]
        module = entry.constructor.__module__
        if module.startswith(("blocks.", "training.")) and not module.endswith(".contracts"):
            folder = module.rsplit(".", 1)[0].split(".")[-1]
            assert folder == entry.family, f"{name} is registered in {module}"


def test_a_family_has_its_tests_where_they_are_looked_for():
    for folder in sorted((ROOT / "blocks").iterdir()):
        if folder.is_dir() and (folder / "__init__.py").exists():
            tests = ROOT / "tests" / "blocks" / folder.name
            assert any(tests.glob("test_*.py")), f"blocks/{folder.name} has no tests in {tests.relative_to(ROOT)}"


def test_every_name_is_documented():
    for name in REGISTRY.names():
        entry = REGISTRY[name]
        assert len(entry.doc) > 15, f"{name} must say in one line what it does, but says {entry.doc!r}"
        for choice in entry.choices.values():
            assert choice.doc, f"{name} must document its choice {choice.name!r} under Args"


def test_names_of_mixers_are_unique():
    short = [REGISTRY[n].short for n in REGISTRY.names("attention", "linear", "recurrent", "convolution")]
    assert len(short) == len(set(short))


def test_we_are_the_ones_imported():
    """Our package names are plain words; another project's must not stand in for them."""
    for module in (blocks, registry):
        assert Path(module.__file__).is_relative_to(ROOT), f"{module.__name__} comes from {module.__file__}"


@pytest.mark.parametrize("module", ["registry", "train"])
def test_importing_is_quick(module):
    """Torch and Lightning are imported when they are needed, not before."""
    code = f"import sys, {module}; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_config_chooses_a_callable():
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert "_target_" not in file.read_text(encoding="utf-8"), where(file)


TEXTS = [
    f for top in ("benchmarks", "blocks", "registry", "tests", "training") for f in sorted((ROOT / top).rglob("*.py"))
]


def test_text_files_are_read_and_written_as_utf8():
    """Else what works depends on the locale."""
    unnamed = []
    for file in TEXTS:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                arguments = {"read_text": 0, "write_text": 1}.get(node.func.attr)
                if len(node.args) == arguments and "encoding" not in {k.arg for k in node.keywords}:
                    unnamed.append(f"{where(file)}:{node.lineno}")
    assert not unnamed, f"{', '.join(unnamed)} must name an encoding"
