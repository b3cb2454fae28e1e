"""The command: from words to a trained model, and what its exit status says."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from registry.compose import launch
from registry.quoting import quoted
from train import compare, train
from training.checkpoint import load
from training.generate import main as generate
from training.results import read_record

ROOT = Path(__file__).parents[1]
SMALL = [
    "debug=tiny",
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "decoder.n_layers=1",
    "data=text",
    "data.batch_size=2",
    "data.val_batches=1",
    "data.path=text.txt",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a text, where runs go."""
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 100, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BLOCKWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def small(*words):
    """The words of a small run, and others that may take the place of some."""
    said = {word.partition("=")[0] for word in words}
    return [*(word for word in SMALL if word.partition("=")[0] not in said), *words]


def command(*words):
    return launch(train, compare, small(*words))


def runs(here):
    return sorted(p for p in (here / "runs").iterdir()) if (here / "runs").exists() else []


def test_one_command_trains_and_leaves_one_folder(here, capsys):
    assert command("attention=gqa", "attention.n_kv_heads=4") == 0
    (folder,) = runs(here)
    record = read_record(folder)
    assert record.status == "done"
    assert record.spec["model"]["decoder"]["layers"][0]["mixer"]["n_kv_heads"] == 4
    assert record.overrides[-2:] == ["attention=gqa", "attention.n_kv_heads=4"]
    printed = capsys.readouterr().out
    assert re.search(r"mixer +gqa +n_kv_heads 4", printed)
    assert "sample" in printed


def test_a_dry_run_leaves_nothing(here, capsys):
    assert command("dry_run=true") == 0
    assert runs(here) == []
    assert "parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("attention=gqqa", 2),
        ("optimizer.lr=-1", 2),
        ("trainer.max_stepz=3", 2),
        ("attention.n_heads=7", 2),
        ("data.path=nothing.txt", 3),
        ("ckpt_path=nothing.ckpt", 4),
        ("trainer.accelerator=tpu_of_nobody", 2),
    ],
)
def test_a_mistake_is_a_sentence_and_a_status_and_leaves_nothing(here, capsys, word, status):
    assert command(word) == status
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert runs(here) == []


BOTH_WAYS = ["debug=tiny", "model=encoder_only", "encoder.n_layers=1", "trainer.max_steps=4", "data.batch_size=2"]
TEXT = ["data=text", "data.path=text.txt"]


@pytest.mark.parametrize("more", [[], ["dry_run=true"]], ids=["run", "dry_run"])
@pytest.mark.parametrize(
    ("words", "given", "advice"),
    [
        ([*TEXT, "position=dependency"], "text", "Set data.trees=nesting"),
        ([*TEXT, "encoder.position=[rope,dependency]"], "text", "Set data.trees=nesting"),
        (
            ["data=reverse", "data.longest=8", "position=dependency"],
            "reverse",
            "Use data=python_source or data=text, with data.trees=nesting",
        ),
    ],
)
def test_a_position_that_follows_trees_is_refused_where_there_are_none(here, capsys, words, given, advice, more):
    assert launch(train, compare, [*BOTH_WAYS, *words, *more]) == 2
    assert capsys.readouterr().err == (
        "error: position: dependency needs the governor of each token in a tree, "
        f"but data {given!r} gives no trees. "
        f"{advice}, or choose another position.\n"
    )
    assert runs(here) == []
    assert not (here / "cache").exists()


def test_a_position_that_follows_trees_learns_where_there_are_some(here):
    assert launch(train, compare, [*BOTH_WAYS, *TEXT, "position=dependency", "data.trees=nesting"]) == 0
    (folder,) = runs(here)
    record = read_record(folder)
    assert record.status == "done"
    assert record.spec["data"]["trees"] == "nesting"


def test_trees_are_made_of_what_an_encoder_is_shown_in_training_and_of_a_prompt(here, capsys):
    words = ["model=encoder_decoder", "encoder.n_layers=1", "encoder.position=dependency", "data.trees=nesting"]
    assert command(*words) == 0
    assert "trees: made from the tokens that the model is shown\n" in capsys.readouterr().out
    (folder,) = runs(here)
    assert read_record(folder).data["trees"] == "made"
    assert generate([str(folder), "--prompt", "the (quick", "--max-new-tokens", "3"]) == 0


def test_a_loss_that_is_no_number_ends_with_76(here, capsys):
    assert command("optimizer=sgd", "optimizer.lr=1e30", "schedule=constant", "trainer.max_steps=20") == 76
    assert "the loss became" in capsys.readouterr().err
    assert read_record(runs(here)[0]).status == "diverged"


def test_many_jobs_end_with_a_table_and_one_that_fails_is_named(here, capsys):
    assert command("-m", "norm=rms,layer", "attention.n_heads=4,7") == 1
    said = capsys.readouterr().out
    table = said[said.rindex("norm ") :].splitlines()
    assert [line.split()[:2] for line in table[2:6]] == [["rms", "4"], ["rms", "7"], ["layer", "4"], ["layer", "7"]]
    assert [line.split()[-1] for line in table[2:6]] == ["done", "failed", "done", "failed"]
    assert "2 of 4 jobs did not end well:" in table
    assert "n_heads=7: failed." in said.replace("\n  ", " ")


def test_many_jobs_that_all_end_well_end_with_0(here, capsys):
    assert command("-m", "seed=1,2") == 0
    assert "* lowest" in capsys.readouterr().out


def test_a_run_is_repeated_from_its_folder(here, capsys):
    assert command("name=first", "norm=layer") == 0
    assert launch(train, compare, ["rerun=runs/first", "name=second"]) == 0
    first, second = (read_record(here / "runs" / name) for name in ("first", "second"))
    assert first.spec["model"] == second.spec["model"]
    assert first.metrics["best"] == second.metrics["best"]


def test_a_run_goes_on_from_its_checkpoint(here, capsys):
    assert command("name=first") == 0
    words = ["rerun=runs/first", "ckpt_path=runs/first/checkpoints/last.ckpt", "trainer.max_steps=6", "name=second"]
    assert launch(train, compare, words) == 0
    assert read_record(here / "runs" / "second").metrics["steps"] == 6
    assert "resumed at step 4" in capsys.readouterr().out


def test_a_signal_ends_with_75_and_a_checkpoint(here):
    """The whole program in a process of its own, as a scheduler would stop it."""
    words = small("name=stopped", "trainer.max_steps=100000", "trainer.val_check_interval=100000")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=here,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = here / "runs" / "stopped" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    record = read_record(here / "runs" / "stopped")
    assert (record.status, record.reason) == ("stopped", "stopped by SIGTERM")
    assert (here / "runs" / "stopped" / record.files["last"]).exists()
    assert "ckpt_path=runs/stopped/checkpoints/last.ckpt" in said
    assert "WARNING" not in said
    assert "Warning" not in said


def test_a_signal_before_there_is_anything_to_save_says_so(here, capsys, monkeypatch):
    monkeypatch.setattr("training.run.tell", lambda *args: signal.raise_signal(signal.SIGINT))
    assert command() == 75
    assert capsys.readouterr().err.strip() == "stopped by SIGINT, before anything was saved"
    assert runs(here) == []


def test_a_signal_ends_a_multi_run_with_75_and_names_what_did_not_begin(here, capsys, monkeypatch):
    monkeypatch.setattr("training.run.tell", lambda *args: signal.raise_signal(signal.SIGINT))
    assert command("-m", "seed=1,2,3") == 75
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 jobs did not end well:" in said
    assert "stopped by SIGINT, before anything was saved" in said
    assert said.count("stopped. it did not begin") == 2


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN], ids=["as_usual", "ignored_by_nohup"])
def test_a_signal_while_the_program_starts_is_no_traceback(handler):
    """In a process of its own: a shell may have it ignore the signal, as one does that starts it in the background."""
    start = (
        "import signal, train, registry.compose as compose;"
        "compose.launch = lambda *args, **more: signal.raise_signal(signal.SIGINT); train.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", start],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "stopped by SIGINT before a run began\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_run_goes_on_without_its_output(here):
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *small("name=unseen")],
            cwd=here,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (process.returncode, process.stderr) == (
        5,
        'error: standard output must be writable, but got "No space left on device". The run goes on without it.\n',
    )
    record = read_record(here / "runs" / "unseen")
    assert (record.status, record.metrics["steps"]) == ("done", 4)
    assert all((here / "runs" / "unseen" / file).exists() for file in record.files.values())


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_to_go_on_from(here):
    """The run that goes on ends with the weights of one that never stopped."""
    (here / "kill.py").write_text(KILL, encoding="utf-8")
    words = small("trainer.max_steps=6", "trainer.val_check_interval=2", "callbacks.sample=null")
    killed = [sys.executable, str(ROOT / "train.py"), *words, "name=killed", "plugins=[./kill.py]", "callbacks.kill={}"]
    process = subprocess.run(killed, cwd=here, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert process.returncode == -signal.SIGKILL
    last = here / "runs" / "killed" / "checkpoints" / "last.ckpt"
    assert load(last)["global_step"] == 2
    assert launch(train, compare, [*words, "name=again", f"ckpt_path={quoted(str(last))}"]) == 0
    assert launch(train, compare, [*words, "name=whole"]) == 0
    again, whole = (load(here / "runs" / n / "checkpoints" / "last.ckpt")["state_dict"] for n in ("again", "whole"))
    assert all(torch.equal(again[k], whole[k]) for k in whole)


KILL = '''
import os, signal

import lightning as L

from registry import register
from training.checkpoint import Hashed


@register("callback/kill")
class Kill(L.Callback):
    """Ends this process in the middle of the checkpoint of step 4."""

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if trainer.global_step == 4:
            Hashed.write = lambda self, data: os.kill(os.getpid(), signal.SIGKILL)
'''
