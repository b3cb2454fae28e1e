"""A process from its first to its last line: how it was started, its signals, output that nobody takes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry import program

ROOT = Path(__file__).parents[2]
FULL = "/dev/full"
LOST = 'error: standard output must be writable, but got "{}". {}\n'
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason=f"this system has no {FULL}")


def shell(line, cwd=ROOT):
    """A command line of a shell, in which ``py`` is this interpreter."""
    line = f'py() {{ "{sys.executable}" "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", line], cwd=cwd, capture_output=True, text=True)


# Output that nobody takes ---------------------------------------------------------------------------------------------


@needs_full
def test_output_on_a_full_disk_is_a_sentence_and_status_5():
    done = shell(f"py -m registry --help > {FULL}")
    assert (done.returncode, done.stderr) == (
        5,
        LOST.format("No space left on device", "Send it to where there is room."),
    )


def test_a_closed_output_is_a_sentence_and_status_5():
    done = shell("py -m registry --help >&-")
    assert (done.returncode, done.stderr) == (5, LOST.format("it is closed", "Send it to where there is room."))


def test_a_reader_that_leaves_is_no_mistake():
    done = shell("{ py train.py --help; echo $? >&2; } | head -n 1")
    assert (
        done.stdout
        == "Blockwright composes a sequence model from named blocks, trains it and reports what it was worth.\n"
    )
    assert done.stderr == "0\n"


def test_a_bug_keeps_its_traceback_alone_where_a_reader_left():
    work = "from registry.program import run; run(lambda: print('buffered') or 1 / 0)"
    done = shell(f'{{ py -c "{work}"; echo $? >&2; }} | true')
    assert done.stderr.startswith("Traceback ")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n1\n")


def test_a_mistake_keeps_its_status_and_its_sentence_where_output_is_closed():
    done = shell("py -m registry new norm >&-")
    assert (done.returncode, done.stderr) == (
        2,
        "error: new: a family and a name must be given, as in new attention my_attention, and at most a block to start "
        "from, as in new attention my_attention like gqa, but got 'norm'.\n",
    )


@pytest.mark.parametrize("closed", ["2>&-", pytest.param(f"2>{FULL}", marks=needs_full), "<&- 2>&-"])
def test_what_is_meant_for_stderr_goes_nowhere_else(closed):
    done = shell(f"py -m registry new norm {closed}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_file_never_takes_the_place_of_a_closed_output(tmp_path):
    """Descriptor 1 would be the next file that is opened, and a child's output would end in it."""
    work = "file = open('mine', 'w'); os.system('echo no'); print('no'); return 0"
    (tmp_path / "script.py").write_text(
        f"import os\nfrom registry.program import run\ndef work():\n    {work}\nrun(work, goes_on=True)\n",
        encoding="utf-8",
    )
    done = shell(f'PYTHONPATH="{ROOT}" py script.py >&-', cwd=tmp_path)
    assert done.stderr == LOST.format("it is closed", "The run goes on without it.")
    assert (done.returncode, (tmp_path / "mine").read_text(encoding="utf-8")) == (5, "")


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [False, True], ids=["as_usual", "ignored_by_the_shell"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_sentence_and_status_75(number, ignored):
    work = f"from registry.program import run; import signal; run(lambda: signal.raise_signal({int(number)}))"
    done = subprocess.run(
        [sys.executable, "-c", work],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (75, "", f"stopped by {number.name}\n")


def test_a_signal_before_anything_is_imported_is_a_sentence_and_status_75():
    work = "import blockwright, signal; blockwright.start(); signal.raise_signal(signal.SIGINT); print('goes on')"
    done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "stopped by SIGINT\n")


def test_the_registry_answers_signals_before_it_imports_its_commands():
    work = (
        "import runpy, signal, sys; sys.modules['registry.plugins'] = None\n"
        "try:\n    runpy.run_module('registry', run_name='__main__', alter_sys=True)\n"
        "except ImportError:\n    signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "stopped by SIGINT\n")


def test_a_signal_waits_for_an_import_that_would_go_on_without_it():
    work = (
        "import signal, sys; from registry.program import run, uninterrupted\n"
        "def work():\n"
        "    with uninterrupted():\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print('imported')\n"
        "    print('goes on')\n"
        "run(work)"
    )
    done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (75, "imported\n", "stopped by SIGTERM\n")


def test_a_signal_after_the_work_does_not_change_the_status():
    work = (
        "import atexit, signal; from registry.program import run;"
        "atexit.register(lambda: [signal.raise_signal(s) for s in (signal.SIGINT, signal.SIGTERM)]); run(lambda: 3)"
    )
    done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")


# How it was started ---------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch, tmp_path):
    """As if this process had been started otherwise."""

    def start(name, module=None, path=""):
        monkeypatch.setattr(sys, "argv", [name])
        spec = None if module is None else SimpleNamespace(name=module)
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
        monkeypatch.setenv("PATH", path)
        return program.program()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("", encoding="utf-8")
    (tmp_path / "bin" / "python").chmod(0o755)
    return start


def test_training_is_started_as_it_was(started, tmp_path):
    on_path = str(tmp_path / "bin")
    assert started("train.py", path=on_path) == ["python", "train.py"]
    assert started("train.py") == ["bin/python", "train.py"]
    assert started("/there/my_own.py", path=on_path) == ["python", "/there/my_own.py"]
    assert started("/site-packages/train.py", module="train", path=on_path) == ["python", "-m", "train"]


def test_an_installed_command_is_named_as_the_shell_finds_it(started, tmp_path):
    command = tmp_path / "bin" / "blockwright"
    command.write_text("", encoding="utf-8")
    command.chmod(0o755)
    assert started(str(command), path=str(tmp_path / "bin")) == ["blockwright"]
    assert started(str(command)) == ["bin/blockwright"]


def test_other_programs_name_what_starts_training_from_here(started, tmp_path, monkeypatch):
    on_path = str(tmp_path / "bin")
    assert started("registry/__main__.py", module="registry.__main__", path=on_path) == ["python", "-m", "train"]
    (tmp_path / "bin" / "blockwright").write_text("", encoding="utf-8")
    (tmp_path / "bin" / "blockwright").chmod(0o755)
    assert started("registry/__main__.py", module="registry.__main__", path=on_path) == ["blockwright"]
    (tmp_path / "train.py").write_text("another's", encoding="utf-8")
    assert started("registry/__main__.py", module="registry.__main__", path=on_path) == ["blockwright"]
    monkeypatch.chdir(ROOT)
    assert started("registry/__main__.py", module="registry.__main__", path=on_path) == ["python", "train.py"]


def test_help_names_the_command_that_printed_it(tmp_path):
    words = "import sys; sys.argv[0] = '/there/bin/blockwright'; import train; train.main()"
    done = subprocess.run(
        [sys.executable, "-c", words, "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n    /there/bin/blockwright -m attention=mha,gqa position=rope,alibi seed=1,2,3\n" in done.stdout
    assert 'eval "$(/there/bin/blockwright -sc install=bash)"' in done.stdout
    assert "train.py" not in done.stdout
