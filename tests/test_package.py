"""Holds what is built from this repository: everything is in it, and it runs beside packages with the names of ours."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import blockwright
from blockwright import NAMES
from registry import ConfigError, plugins

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "blockwright": ["-c", "from blockwright import main; main()", "dry_run=true"],
    "train": ["-m", "train", "dry_run=true"],
    "registry": ["-m", "registry", "list", "norm"],
    "training": ["-m", "training.generate", "runs/none"],
}
OTHERS = [*(("blockwright", n) for n in NAMES), ("train", "registry"), ("registry", "training"), ("training", "blocks")]
INSTALL_APART = "Install blockwright and other 1.0 in environments of their own."


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both distributions, as an installer would build them."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def site(dist: Path, tmp_path: Path) -> Path:
    """A folder into which the wheel is installed."""
    folder = tmp_path / "site"
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder.resolve()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder.resolve()


def put(folder: Path, name: str) -> Path:
    """A package or module of another project."""
    file = folder / (f"{name}.py" if name == "train" else f"{name}/__init__.py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('raise SystemExit("code of another project ran")\n', encoding="utf-8")
    return file


def install(folder: Path, *names: str) -> list[Path]:
    """Write a package called other 1.0 as pip does: over what is there."""
    files = [put(folder, name) for name in names]
    info = folder / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", encoding="utf-8")
    (info / "RECORD").write_text("".join(f"{f.relative_to(folder).as_posix()},,\n" for f in files), encoding="utf-8")
    return files


def run(command: str, folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONSAFEPATH", plugins.VARIABLE)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, *COMMANDS[command]], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """What a command says that ends before it begins."""
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr.removeprefix("error: ").removesuffix("\n")


def place(site: Path, name: str) -> Path:
    return site / ("train.py" if name == "train" else f"{name}/__init__.py")


# What is in the distributions ----------------------------------------------------------------------------------------


def test_the_source_distribution_has_all_that_belongs_to_the_project(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("benchmarks", "blocks", "conf", "docs", "registry", "tests", "training"):
        ours = {
            p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"
        }
        assert ours <= files
    tops = "Makefile README.md CHANGELOG.md CONTRIBUTING.md LICENSE constraints.txt noxfile.py pyproject.toml train.py"
    assert {*tops.split()} <= files
    assert not {f.partition("/")[0] for f in files} & {".venv", ".nox", "runs", "outputs", ".git"}


def test_the_wheel_has_what_runs_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        files = archive.namelist()
    assert {f.partition("/")[0] for f in files} == {
        "blockwright-0.1.0.dist-info",
        "blockwright.py",
        *(n for n in NAMES if n != "train"),
        "train.py",
    }
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / "conf").rglob("*.yaml")} <= {*files}


def metadata(dist: Path) -> Message:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        return email.message_from_bytes(archive.read("blockwright-0.1.0.dist-info/METADATA"))


def test_the_metadata_names_authors_kind_and_supported_pythons(dist: Path) -> None:
    facts = metadata(dist)
    assert facts["Author"] == "The Blockwright authors"
    kinds = facts.get_all("Classifier")
    assert kinds is not None
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(kinds))
    assert pythons == ["3.11", "3.12", "3.13"]
    assert "Topic :: Scientific/Engineering :: Artificial Intelligence" in kinds


def test_what_finds_an_editable_install_is_required(dist: Path) -> None:
    """The build adds it where pip reads the requirements from; uv reads them from pyproject.toml."""
    needs = metadata(dist).get_all("Requires-Dist")
    assert needs is not None
    assert [n for n in needs if n.startswith("editables")] == ["editables>=0.5"]


def test_the_long_description_links_to_nothing_that_it_does_not_carry(dist: Path) -> None:
    payload = metadata(dist).get_payload(decode=True)
    assert isinstance(payload, bytes)
    text = payload.decode()
    assert text.startswith("# Blockwright")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert all(re.match(r"https?://", target) for target in targets), targets
    assert "`docs/catalogue.md` lists every block" in text
    assert text.rstrip().endswith(
        "The files that this page names are in the repository and in the source distribution."
    )


# Whose a package is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "name"), OTHERS)
def test_a_package_of_that_name_before_ours_on_the_path_is_named(
    command: str, name: str, site: Path, elsewhere: Path, tmp_path: Path
) -> None:
    file = put(elsewhere, name)
    done = run(command, tmp_path, elsewhere, site)
    assert refusal(done) == (
        f"{name}: the package must be Blockwright's ({place(site, name)}), but {file} comes first on the path. "
        "Take its folder off PYTHONPATH, or rename it."
    )


@pytest.mark.parametrize("command", ["train", "registry", "training"])
def test_a_package_of_that_name_in_the_working_directory_is_named(command: str, site: Path, elsewhere: Path) -> None:
    file = put(elsewhere, "blocks")
    done = run(command, elsewhere, site)
    assert refusal(done) == (
        f"blocks: the package must be Blockwright's ({place(site, 'blocks')}), but {file} comes first on the path. "
        "Run from another folder, or rename that one."
    )


def test_all_names_that_are_taken_are_reported_at_once_with_their_owner(
    site: Path, elsewhere: Path, tmp_path: Path
) -> None:
    files = install(elsewhere, *NAMES)
    done = run("blockwright", tmp_path, elsewhere, site)
    assert refusal(done).split("\nerror: ") == [
        f"{name}: the package must be Blockwright's ({place(site, name)}), but {file} of other 1.0 comes first on the "
        f"path. {INSTALL_APART}"
        for name, file in zip(NAMES, files, strict=True)
    ]


def test_packages_after_ours_on_the_path_and_folders_that_are_none_change_nothing(
    site: Path, elsewhere: Path, tmp_path: Path
) -> None:
    for name in NAMES:
        put(elsewhere, name)
        (tmp_path / name).mkdir()
    done = run("registry", tmp_path, site, elsewhere)
    assert done.returncode == 0, done.stderr
    assert "rms" in done.stdout


@pytest.mark.parametrize(("command", "name"), OTHERS)
def test_a_package_that_was_installed_over_ours_is_named(command: str, name: str, site: Path, tmp_path: Path) -> None:
    (file,) = install(site, name)
    done = run(command, tmp_path, site)
    assert refusal(done) == (
        f"{file.relative_to(site)}: the file must be Blockwright's or not be there, but other 1.0 was installed into "
        f"the same folder ({site}). {INSTALL_APART}"
    )


def test_a_package_among_whose_files_ours_were_installed_is_named(site: Path, tmp_path: Path) -> None:
    """Ours came later: its files are whole, and what is left of the other would be imported as a family."""
    file = put(site / "training", "extra")
    info = site / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", encoding="utf-8")
    (info / "RECORD").write_text(f"{file.relative_to(site).as_posix()},,\ntraining/__init__.py,,\n", encoding="utf-8")
    done = run("blockwright", tmp_path, site)
    assert refusal(done) == (
        "training/extra/__init__.py: the file must be Blockwright's or not be there, but other 1.0 was installed into "
        f"the same folder ({site}). {INSTALL_APART}"
    )


def test_files_of_ours_that_were_removed_with_another_package_are_named(site: Path, tmp_path: Path) -> None:
    again = "install blockwright again, in an environment of its own."
    place(site, "train").unlink()
    done = run("blockwright", tmp_path, site)
    # The checkout that the tests run from may stand on the path as well: then its train.py is found.
    assert refusal(done).startswith(f"train: {'the package must be' if 'comes first' in done.stderr else site}")
    (site / "train.py").write_bytes((ROOT / "train.py").read_bytes())
    (site / "training" / "batch.py").unlink()
    done = run("blockwright", tmp_path, site)
    assert refusal(done) == (
        f"training/batch.py: {site}/training/batch.py must be there, but it is gone. Where another package with this "
        f"file was removed, it went too: {again}"
    )


def test_a_family_of_ones_own_may_be_put_beside_ours(site: Path, tmp_path: Path) -> None:
    (site / "blocks" / "norm" / "own.py").write_text(
        (ROOT / "blocks/norm/rms.py").read_text(encoding="utf-8").replace("/rms", "/own"), encoding="utf-8"
    )
    done = run("registry", tmp_path, site)
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_means_its_own_package_by_a_name_of_ours_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import training.helpers_of_mine\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refusal:
        plugins.load([str(file)])
    assert str(refusal.value) == (
        f"plugins: in {file}, 'training.helpers_of_mine' must be a module of Blockwright's package 'training' "
        f"({ROOT / 'training'}), but there is none. A package 'training' of your own can not be imported beside ours: "
        "give it another name."
    )


def test_here_all_names_are_ours() -> None:
    assert blockwright.taken() == []
