"""What is printed: only choices that differ, a table that adds up, lines that fit, a comparison that names failures."""

import io
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry import factory
from registry.compose.hydra import parse as parse_word
from training import report
from training.console import Console, count, crop, duration, printable, rate, size
from training.generate import parse
from training.results import Record
from training.summary import Part, Summary, summarise


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self, terminal=True):
        self.terminal, self.text = terminal, ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def paper():
    return Console(Terminal(terminal=False))


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "44")
    return Console(Terminal())


# The console ----------------------------------------------------------------------------------------------------------


def test_on_paper_there_is_no_colour_and_no_live_line(paper):
    paper.live("step 1")
    paper.print("done", "bold")
    assert paper.stream.text == "done\n"


def test_a_line_that_stays_goes_above_the_live_line(screen):
    screen.live("step 1")
    screen.print("validation")
    assert screen.stream.text == "\rstep 1\x1b[K\r\x1b[Kvalidation\n\rstep 1\x1b[K"
    screen.settle()
    assert screen.stream.text.endswith("\r\x1b[K")


def test_no_color_means_none(screen, monkeypatch):
    assert screen.style("x", "bold") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen.style("x", "bold") == "x"


def test_the_live_line_never_wraps(screen):
    screen.live("x" * 100)
    assert len(screen.stream.text) == len("\r") + 43 + len("\x1b[K")


class Broken(Terminal):
    """A stream that takes nothing, as one on a full disk does."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def closed():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken(), Broken(terminal=False), closed()], ids=["live", "plain", "closed"])
def test_a_stream_that_takes_nothing_ends_no_run(stream):
    out = Console(stream)
    out.print("a line", "bold")
    out.live("a live line")
    out.settle()


def test_a_program_without_standard_output_prints_nowhere(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    Console().print("a line")
    assert not Console().terminal


def test_an_old_encoding_gets_what_it_can_say():
    stream = Terminal(terminal=False)
    stream.encoding = "ascii"
    Console(stream).print("a ─ b")
    assert stream.text == "a ? b\n"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (count(0), "0"),
        (count(999), "999"),
        (count(999.9), "1.00 k"),
        (count(12_345), "12.3 k"),
        (count(1_234_567), "1.23 M"),
        (count(987_654_321), "988 M"),
        (size(512), "512 B"),
        (size(2048), "2.0 KiB"),
        (size(3 * 1024**3), "3.0 GiB"),
        (duration(59.6), "1:00"),
        (duration(3725), "1:02:05"),
        (rate(0.01), "0.01"),
        (rate(0.00091), "9.1e-04"),
        (rate(0.0), "0"),
        (crop("abcdef", 4), "abc…"),
        (crop("abc", 4), "abc"),
        (printable("a\x1b[2Jb\tc\n"), "a\ufffd[2Jb\tc\n"),
    ],
)
def test_numbers_and_texts_for_people(said, expected):
    assert said == expected


# What was composed ----------------------------------------------------------------------------------------------------


def told(spec):
    return {where.strip(): (what, choices) for where, what, choices in report.composition(spec)}


def test_only_choices_that_differ_from_the_defaults_are_told(make_job):
    rows = told(make_job(attention={"name": "mha", "n_heads": 4}, optimizer={"name": "adamw", "lr": 1e-3}).spec)
    assert rows["mixer"] == ("mha", "n_heads 4")
    assert rows["optimizer"] == ("adamw", "")
    assert rows["ffn"] == ("mlp", "")
    assert rows["model"] == ("decoder_only", "d_model 32, max_length 32, tie true")


def test_what_all_layers_share_is_told_once(make_job):
    job = make_job(decoder={"n_layers": 3, "layers": {"1": {"ffn": {"name": "swiglu"}}}})
    rows = told(job.spec)
    assert rows["decoder"][0] == "3 layers"
    assert rows["mixer"] == ("mha", "n_heads 4")
    assert rows["layers 0, 2 ffn"] == ("mlp", "")
    assert rows["layer 1 ffn"] == ("swiglu", "")
    assert "ffn" not in rows


def test_ranges_of_layers():
    assert report.ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


def test_every_line_fits_a_narrow_terminal(make_job, screen, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    job = make_job()
    summary = summarise(factory(job.spec["model"])(260), job.spec["model"], 32)
    record = Record("run", model={"parameters": 5}, machine={"device": "cpu", "precision": "32-true"})
    report.show_composition(job.spec, record, screen)
    report.show_summary(summary, screen)
    report.show_data({"source": "a text of words " * 9, "train_tokens": 5, "unigram_entropy": 2.5}, screen)
    lines = screen.stream.text.splitlines()
    path = next(line for line in lines if "text.txt" in line)  # a path is one word, and is not broken
    assert [line for line in lines if line != path and len(line) > 44] == []


@pytest.mark.parametrize(
    ("trees", "lines"),
    [
        ("none", []),
        ("made", ["trees: made from the tokens that the model is shown"]),
        ("given", ["trees: given with the data, including masked words"]),
    ],
)
def test_where_trees_come_from_is_told(paper, trees, lines):
    report.show_data({"source": "a treebank", "trees": trees}, paper)
    assert paper.stream.text.splitlines() == ["a treebank", *lines, ""]


# The table of parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["decoder_only", "encoder_only", "encoder_decoder"])
def test_the_parts_add_up_to_the_model(make_job, name):
    job = make_job(model={"name": name}, **({} if name == "decoder_only" else {"encoder": {"n_layers": 2}}))
    model = factory(job.spec["model"])(260)
    summary = summarise(model, job.spec["model"], 32)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert sum(part.flops for part in summary.parts) == summary.flops == model.cost(32).flops
    assert sum(part.state_bytes for part in summary.parts) == summary.state_bytes == model.cost(32).state_bytes
    if name == "encoder_only":
        assert summary.state_bytes == 0
    if name == "decoder_only":
        assert summary.state_bytes == model.empty_state(1, 32).bytes()
    if name == "encoder_decoder":
        states = {part.name: part.state_bytes / part.times for part in summary.parts if part.where == "decoder"}
        own, cross = states["attention/mha"], states["attention/mha, cross"]
        assert own - cross == (cross - 8) / 32  # a slot for padding is all that they differ in


def test_equal_parts_are_one_row_and_reading_a_memory_is_another(make_job):
    job = make_job(model={"name": "encoder_decoder"}, encoder={"n_layers": 2}, decoder={"n_layers": 3})
    summary = summarise(factory(job.spec["model"])(260), job.spec["model"], 32)
    rows = {(part.where, part.name): part.times for part in summary.parts}
    assert rows["encoder", "attention/mha"] == 2
    assert rows["decoder", "attention/mha"] == 3
    assert rows["decoder", "attention/mha, cross"] == 3
    assert rows["embedding", "embedding/token"] == 1


def test_a_table_gives_up_columns_where_there_is_no_room(paper, screen, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    summary = Summary([Part("decoder", "attention/mha", 2, 1000, 64_000, 4096)], 1000, 64_000, 4096, 32)
    report.show_summary(summary, paper)
    assert "decoder  2 x mha      1.00 k  100.0 %       2.00 k        128 B" in paper.stream.text
    report.show_summary(summary, screen)
    heads = screen.stream.text.splitlines()[0]
    assert "parameters" in heads
    assert "share" not in heads


# The end, and many runs -----------------------------------------------------------------------------------------------


def record(overrides=(), loss=2.0, status="done", **more):
    best = {} if loss is None else {"step": 8, "val/loss": loss, "val/bits_per_byte": loss / 0.693}
    metrics = {"steps": 8, "seconds": 3.2, "best": best, "tokens_per_second": 1000.0, "validations": [best]}
    return Record("run", status, overrides=list(overrides), metrics=metrics, model={"parameters": 1500}, **more)


@pytest.fixture
def python(monkeypatch):
    """The interpreter has this name, wherever the tests are run from."""
    monkeypatch.setattr(report, "python", lambda: "python")


def test_the_end_card_tells_the_best_the_files_and_what_may_come_next(paper, python):
    spec = {"model": {"decoder": {"name": "stack/plain"}}, "trainer": {"max_steps": 8}}
    files = {"best": "checkpoints/best.ckpt", "last": "checkpoints/last.ckpt"}
    data = {"unigram_entropy": 3.1, "prompt": "All the world's"}
    made = record(spec=spec, files=files, data=data, command=["blockwright"], seed=4)
    report.show_end(made, Path("runs/a b"), paper)
    assert paper.stream.text.splitlines() == [
        "",
        "done  8 steps in 0:03, 1.00 k tokens/s",
        "best   validation loss 2.0000, 2.886 bits/byte at step 8",
        "       unigram entropy of the data 3.1000",
        "files  runs/a b/checkpoints/best.ckpt",
        "       runs/a b/checkpoints/last.ckpt",
        """next   python -m training.generate 'runs/a b' --prompt 'All the world'"'"'s'""",
        """       blockwright 'rerun="runs/a b"' 'ckpt_path="runs/a b/checkpoints/last.ckpt"' trainer.max_steps=16""",
        """       blockwright 'rerun="runs/a b"' seed=5""",
    ]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("First Citizen:", ["--prompt", "First Citizen:"]),
        ("-- a list", ["--prompt=-- a list"]),
        ("", ["--prompt", "..."]),
    ],
)
def test_the_next_prompt_reaches_the_command_as_it_is(python, prompt, words):
    spec = {"model": {"decoder": {"name": "stack/plain"}}}
    made = record(spec=spec, files={"last": "checkpoints/last.ckpt"}, data={"prompt": prompt})
    command = report.next_commands(made, Path("runs/a"))[0]
    assert shlex.split(command) == ["python", "-m", "training.generate", "runs/a", *words]
    assert parse(shlex.split(command)[3:]).prompt == [prompt or "..."]


@pytest.mark.parametrize(("loss", "above"), [(3.2, True), (3.1, False), (2.0, False)])
def test_a_loss_above_the_unigram_entropy_is_named(paper, loss, above):
    report.show_end(record(loss=loss, data={"unigram_entropy": 3.1}), Path("runs/a"), paper)
    line = "       the loss is above it: counting tokens predicts the text better than this model"
    assert (line in paper.stream.text.splitlines()) == above


def test_what_should_be_known_of_the_data_is_told(paper):
    report.show_data({"source": "a text", "notes": ["each batch repeats windows."]}, paper)
    assert paper.stream.text.splitlines() == ["a text", "each batch repeats windows.", ""]


def test_after_a_divergence_a_lower_rate_is_offered(paper):
    made = record(status="diverged", spec={"model": {}, "optimizer": {"lr": 0.3}}, command=["python", "train.py"])
    report.show_end(made, Path("runs/a"), paper)
    assert paper.stream.text.splitlines()[-1] == "next   python train.py rerun=runs/a optimizer.lr=0.1"


def job(overrides, loss=2.0, same=(), unused=(), **more):
    made = record(overrides, loss, **more)
    came = {"folder": Path("nowhere"), "status": made.exit_status, "result": made, "error": ""}
    return SimpleNamespace(overrides=overrides, same=same, unused=unused, **came)


def test_a_multi_run_ends_with_what_varied_and_what_came_of_it(paper):
    report.show_jobs([job(["norm=rms", "a=1", "seed=1"]), job(["norm=layer", "a=1", "seed=1"], 1.5)], paper)
    lines = paper.stream.text.splitlines()
    assert lines[1].split() == ["norm", "val", "loss", "bits/byte", "parameters", "tokens/s", "status"]
    assert lines[3].split() == ["rms", "2.0000", "2.886", "1.50", "k", "1.00", "k", "done"]
    assert lines[4].split() == ["layer", "1.5000*", "2.165", "1.50", "k", "1.00", "k", "done"]


def test_jobs_that_failed_are_named_with_their_reason(paper, tmp_path):
    failed = SimpleNamespace(
        overrides=["norm=rms"],
        folder=tmp_path,
        status=2,
        result=None,
        error="norm: it is odd.\nnorm: it is even.",
        same=(),
        unused={},
    )
    record([], status="diverged", reason="the loss became nan at step 3.").save(tmp_path)
    left = SimpleNamespace(**(vars(failed) | {"status": 76, "error": "..."}))
    report.show_jobs([left, job(["norm=layer"])], paper)
    assert "1 of 2 jobs did not end well:" in paper.stream.text
    assert "diverged. the loss became nan at step 3." in paper.stream.text
    failed.folder = tmp_path / "nothing"
    report.show_jobs([failed], paper)
    assert "norm=rms: failed. norm: it is odd. (and 1 more)" in paper.stream.text


def test_the_same_words_twice_are_named(paper):
    report.show_jobs([job(["attention=mha"], same=(["attention=mha"],))], paper)
    assert "attention=mha: asked for 2 times, ran once." in one_line(paper)


def test_words_of_one_composition_share_a_row(paper):
    one = job(["mixer=lstm", "attention=mha"], same=(["mixer=lstm", "attention=gqa"],))
    report.show_jobs([one, job(["mixer=attention", "attention=mha"], 1.5)], paper)
    assert paper.stream.text.splitlines()[3].split()[:4] == ["lstm", "mha", "=", "gqa"]
    assert "mixer=lstm attention=mha and mixer=lstm attention=gqa are one composition, and ran once." in one_line(paper)


def test_words_without_effect_are_named(paper):
    unused = {"attention=gqa": "attention: gqa must have an effect, but ..."}
    report.show_jobs([job(["mixer=lstm", "attention=gqa"], unused=unused), job(["mixer=rnn"], unused=unused)], paper)
    assert "attention=gqa has no effect in any job." in one_line(paper)
    report.show_jobs([job(["mixer=lstm"], unused=unused), job(["mixer=attention"])], paper)
    assert "attention=gqa has no effect in mixer=lstm." in one_line(paper)


def test_jobs_with_the_very_same_losses_are_flagged(paper):
    report.show_jobs([job(["mask=window"]), job(["mask=chunked"]), job(["mask=strided"], 1.5)], paper)
    assert "mask=window, mask=chunked: the losses are exactly the same at every validation" in one_line(paper)


def one_line(paper):
    """What was printed, as if the paper were wide."""
    return " ".join(paper.stream.text.split())


def test_commands_can_be_copied_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / "lauf 1 é's"
    made = record(files={"last": "checkpoints/last.ckpt"}, command=["python", "train.py"], spec={})
    resume, again = report.next_commands(made, folder)
    for command, path in ((resume, "rerun"), (again, "rerun"), (resume, "ckpt_path")):
        (word,) = (w for w in shlex.split(command) if w.startswith(f"{path}="))
        assert str(parse_word(word).value).startswith(str(folder))
