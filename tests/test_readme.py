"""The README's commands and code run as they are written; training is cut short, and installation left out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line and not line.startswith("make ")]
SHORT = ["trainer.max_steps=2", "model.d_model=64", "model.max_length=32", "data.batch_size=2", "callbacks.sample=null"]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = command.split(" > ")[0]
    if words.startswith("python train.py"):
        words += " " + " ".join(w for w in SHORT if not ("data=reverse" in words and "max_length" in w))
    arguments = [sys.executable if w == "python" else w for w in shlex.split(words)]
    arguments = [str(ROOT / w) if w == "train.py" else w for w in arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands run, with the file that one of them writes."""
    folder = tmp_path_factory.mktemp("readme")
    writes = [c for c in COMMANDS if " > " in c]
    for command in writes:
        done = run(command, folder)
        assert done.returncode == 0, done.stderr
        (folder / command.split(" > ")[1]).write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", [c for c in COMMANDS if " > " not in c])
def test_a_command_runs(command, folder):
    done = run(command, folder)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def test_the_two_commands_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = re.findall(r"^make (\w+)", "\n".join(BLOCKS), re.MULTILINE)
    assert asked == ["train", "test"]
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in asked)


def test_the_block_in_the_readme_keeps_the_laws(tmp_path):
    """It is checked as a reader's own file would be."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "norm.py").write_text(code, encoding="utf-8")
    done = run("python -m registry check ./norm.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all laws hold" in done.stdout


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
