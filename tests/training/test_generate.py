"""Generation through the state: the same tokens as without it, for ragged prompts, several samples and both shapes."""

import io
import os
import re

import numpy as np
import pytest
import torch

from registry import factory
from registry.errors import CheckpointError, ConfigError, MachineError
from training.contracts import Example
from training.generate import _stdin as lines_of_stdin
from training.generate import answers, ending, generate, load_run, main, sampler
from training.run import run

WORDS = [np.array([5, 9, 7]), np.array([8]), np.array([6, 5, 5, 9, 4, 7])]


@pytest.fixture
def model(make_job):
    def build(**changes):
        torch.manual_seed(0)
        made = factory(make_job(**changes).spec["model"])(12).eval()
        with torch.no_grad():  # far from uniform, so that no two tokens are nearly alike
            for p in made.parameters():
                p.mul_(3.0)
        return made

    return build


def one_by_one(model, prompt, n, source=None):
    """Greedy decoding by its definition: the whole row again for each token."""
    from blocks.contracts import Layout

    row = list(prompt)
    memory = None
    if source is not None:
        memory = model.encode(torch.tensor([source]), Layout.full(1, len(source)))
    for _ in range(n):
        logits, _ = model(torch.tensor([row]), Layout.full(1, len(row)), memory=memory)
        row.append(int(logits[0, -1].argmax()))
    return row[len(prompt) :]


@pytest.mark.parametrize("mixer", ["attention", "lstm", "word_window"])
def test_ragged_prompts_go_on_as_each_would_alone(model, mixer):
    made = model(mixer={"name": mixer})
    said = generate(made, [Example(w) for w in WORDS], max_new_tokens=10, stops=[[]] * 3)
    assert [list(row[0]) for row in said] == [one_by_one(made, w, 10) for w in WORDS]


def test_a_decoder_reads_the_source_of_each_row(model):
    made = model(model={"name": "encoder_decoder"}, encoder={"n_layers": 1})
    prompts = [Example(np.array([1]), w) for w in WORDS]
    said = generate(made, prompts, max_new_tokens=8, stops=[[]] * 3)
    assert [list(row[0]) for row in said] == [one_by_one(made, [1], 8, list(w)) for w in WORDS]
    assert len({tuple(row[0]) for row in said}) > 1


def test_an_answer_ends_in_front_of_what_stops_it(model):
    made = model()
    free = [list(row[0]) for row in generate(made, [Example(w) for w in WORDS], max_new_tokens=12, stops=[[]] * 3)]
    stops = [[row[k]] for row, k in zip(free, (2, 0, 11), strict=True)]
    said = generate(made, [Example(w) for w in WORDS], max_new_tokens=12, stops=stops)
    assert [list(row[0]) for row in said] == [row[: row.index(stop[0])] for row, stop in zip(free, stops, strict=True)]


def test_banned_tokens_are_never_said(model):
    made = model()
    free = np.concatenate([row[0] for row in generate(made, [Example(WORDS[0])], max_new_tokens=12, stops=[[]])])
    said = generate(made, [Example(WORDS[0])], max_new_tokens=12, stops=[[]], banned=set(free.tolist()))
    assert not set(said[0][0].tolist()) & set(free.tolist())


def test_samples_differ_and_repeat_under_a_seed(model):
    made = model()

    def draw(seed):
        choose = sampler(1.0, None, None, seed, torch.device("cpu"))
        said = generate(made, [Example(w) for w in WORDS], max_new_tokens=10, stops=[[]] * 3, choose=choose, samples=4)
        return [[tuple(a) for a in row] for row in said]

    first = draw(0)
    assert first == draw(0) != draw(1)
    assert [len(row) for row in first] == [4, 4, 4]
    assert all(len(set(row)) > 1 for row in first)


def test_greedy_samples_of_a_prompt_are_its_greedy_answer(model):
    made = model()
    said = generate(made, [Example(w) for w in WORDS], max_new_tokens=6, stops=[[]] * 3, samples=2)
    assert [[list(a) for a in row] for row in said] == [[one_by_one(made, w, 6)] * 2 for w in WORDS]


def test_a_model_in_training_trains_on_afterwards(model):
    made = model().train()
    generate(made, [Example(WORDS[0])], max_new_tokens=2, stops=[[]])
    assert made.training


# How a token is drawn -------------------------------------------------------------------------------------------------


def shares(logits, n=4000, **choices):
    usual = {"temperature": 1.0, "top_k": None, "top_p": None, "seed": 0, "device": torch.device("cpu")}
    draw = sampler(**{**usual, **choices})
    drawn = draw(torch.tensor(logits).expand(n, -1))
    return torch.bincount(drawn, minlength=len(logits)) / n


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = [0.0, 1.0, 2.0]
    torch.testing.assert_close(shares(logits), torch.tensor(logits).softmax(0), atol=0.03, rtol=0)
    cold = (torch.tensor(logits) / 0.5).softmax(0)
    torch.testing.assert_close(shares(logits, temperature=0.5), cold, atol=0.03, rtol=0)


def test_top_k_leaves_the_k_likeliest():
    assert (shares([0.0, 1.0, 2.0, 1.5], top_k=2) > 0).tolist() == [False, False, True, True]


def test_top_p_leaves_the_fewest_that_reach_p():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert (shares(logits, top_p=0.7) > 0).tolist() == [True, True, False, False]
    assert (shares(logits, top_p=0.4) > 0).tolist() == [True, False, False, False]
    assert (shares(logits, top_p=1.0) > 0).tolist() == [True, True, True, True]


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 1e-320, 5e-324])
def test_the_colder_the_likelier_and_the_likeliest_alone_in_the_end(temperature):
    assert shares([0.5, 2.0, 1.0, -torch.inf], temperature=temperature).tolist() == [0, 1, 0, 0]
    equally_likely = shares([2.0, 1.0, 2.0], temperature=temperature)
    torch.testing.assert_close(equally_likely, torch.tensor([0.5, 0.0, 0.5]), atol=0.03, rtol=0)


@pytest.mark.parametrize("temperature", [1e30, 1e40, 1e308])
def test_a_high_temperature_makes_all_alike_that_can_be_drawn(temperature):
    drawn = shares([0.0, 50.0, -torch.inf], temperature=temperature)
    torch.testing.assert_close(drawn, torch.tensor([0.5, 0.5, 0.0]), atol=0.03, rtol=0)


@pytest.mark.parametrize("top_p", [1e-3, 1e-50, 5e-324])
def test_the_likeliest_is_always_among_those_that_reach_p(top_p):
    assert shares([0.5, 2.0, 1.0], top_p=top_p).tolist() == [0, 1, 0]
    assert shares([0.5, 2.0, 1.0], top_p=top_p, temperature=1e-40).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"temperature": -1.0}, "temperature must be a finite number and not negative, but got -1.0."),
        ({"seed": 2**64}, "seed must be a number of 64 bits, but got 18446744073709551616."),
        ({"top_k": 0}, "top_k must be at least 1, but got 0."),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, but got 0.0."),
    ],
)
def test_choices_out_of_bounds_are_refused(choices, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        shares([0.0], **choices)


# A run and the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(make_job, capsys):
    job = make_job(trainer={"max_steps": 30})
    run(job)
    capsys.readouterr()
    return job.folder


def test_a_run_is_loaded_as_it_was_saved(trained):
    model, objective, record = load_run(trained)
    assert record.name == "run"
    assert not model.training
    text = answers(model, objective, ["ab is"], max_new_tokens=8)[0][0]
    assert len(text) == 8
    last, _, _ = load_run(trained / "checkpoints" / "last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), last.state_dict().values(), strict=True))


def test_an_empty_prompt_begins_where_a_document_does(trained):
    model, objective, _ = load_run(trained)
    assert len(answers(model, objective, [""], max_new_tokens=5)[0]) == 1


def test_the_command_prints_prompts_and_answers(trained, capsys):
    assert main([str(trained), "--prompt", "ab is ", "--max-new-tokens", "6"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ab is ")
    assert len(printed.rstrip("\n")) == 12
    assert main([str(trained), "--prompt", "a", "--prompt", "bcd", "--samples", "2", "--temperature", "1"]) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("-- ")] == [
        "-- prompt 1, sample 1",
        "-- prompt 1, sample 2",
        "-- prompt 2, sample 1",
        "-- prompt 2, sample 2",
    ]


@pytest.fixture
def stdin(monkeypatch):
    return lambda data: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_prompts_come_from_standard_input(trained, capsys, stdin):
    stdin(b"ab\ncd\n")
    assert main([str(trained), "--max-new-tokens", "3"]) == 0
    assert len(re.findall(r"^-- prompt [12]$", capsys.readouterr().out, re.MULTILINE)) == 2


@pytest.mark.parametrize(
    ("data", "prompts"),
    [
        (b"ab\ncd", ["ab", "cd"]),
        (b"ab\r\ncd\r\n", ["ab\r", "cd\r"]),
        (b"a\rb\x0cc\xe2\x80\xa8d\n\n", ["a\rb\x0cc\u2028d", ""]),
        (b"", []),
    ],
    ids=["last_line_without_an_end", "crlf", "other_line_ends", "nothing"],
)
def test_a_line_of_standard_input_is_a_prompt_as_it_is(stdin, data, prompts):
    stdin(data)
    assert lines_of_stdin() == prompts


def test_without_standard_input_there_are_no_prompts(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert lines_of_stdin() == []


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"na\xefve\n", "byte 2 of standard input is 0xef. Convert it, for instance with: iconv -f latin1 -t utf-8"),
        (b"a \x93b\x94", "byte 2 of standard input is 0x93. Convert it, for instance with: iconv -f cp1252 -t utf-8"),
        (
            "one\n".encode("utf-16"),
            "standard input is in UTF-16. Convert it, for instance with: iconv -f utf-16 -t utf-8",
        ),
        (
            "one\n".encode("utf-16-be"),
            "standard input is in UTF-16BE. Convert it, for instance with: iconv -f utf-16be -t utf-8",
        ),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "standard input is no text: byte 0 is 0x89. Give lines of text."),
    ],
    ids=["latin1", "cp1252", "utf-16", "utf-16 without a mark", "binary"],
)
def test_prompts_that_are_not_utf8_are_refused_with_advice_that_fits(tmp_path, stdin, capsys, data, found):
    stdin(data)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: a prompt must be UTF-8, but {found}\n"


def test_a_prompt_that_is_half_a_character_is_refused(tmp_path, trained, capsys):
    assert main([str(tmp_path), "--prompt", os.fsdecode(b"a\xff")]) == 2
    assert capsys.readouterr().err == (
        "error: a prompt must be UTF-8, but byte 1 of --prompt is 0xff. "
        "Convert it, for instance with: iconv -f latin1 -t utf-8\n"
    )
    model, objective, _ = load_run(trained)
    with pytest.raises(
        ConfigError, match=r"^a prompt must be text, but character 1 of it is half of one, '\\ud800'\.$"
    ):
        answers(model, objective, ["a\ud800"])


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (
            ["--max-new-tokens", "40"],
            2,
            "max_new_tokens must be from 1 to 30, which is what the longest prompt leaves of model.max_length=32, "
            "but got 40.",
        ),
        (
            ["--prompt", "x" * 32],
            2,
            "a prompt must leave room in the 32 tokens of model.max_length, but got one of 32.",
        ),
        (["--samples", "0"], 2, "samples must be at least 1, but got 0."),
        (
            ["--samples", "3"],
            2,
            "samples must be 1 where temperature is 0, because each would be the same, but got 3. Give --temperature, "
            "as in --temperature 0.8.",
        ),
        (["--device", "cuda:77"], 5, "--device must be one that this machine has, but got 'cuda:77'."),
        (["--device", "meta"], 5, "--device must be one that this machine has, but got 'meta'."),
        (["--top-p", "7", "--temperature", "1"], 2, "top_p must be above 0 and at most 1, but got 7.0."),
    ],
)
def test_what_can_not_be_is_a_sentence_and_a_status(trained, capsys, words, status, sentence):
    assert main([str(trained), "--prompt", "ab", *words]) == status
    assert capsys.readouterr().err.strip() == f"error: {sentence}"


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert main([str(tmp_path), "--prompt", "a"]) == CheckpointError.status
    assert (
        capsys.readouterr().err.strip()
        == f"error: {tmp_path} must be the folder of a run, but there is no run.json in it."
    )
    assert MachineError.status == 5


def test_an_encoder_can_not_go_on(make_job, capsys):
    job = make_job(model={"name": "encoder_only"}, encoder={"n_layers": 1}, trainer={"max_steps": 2})
    run(job)
    capsys.readouterr()
    assert main([str(job.folder), "--prompt", "a"]) == 2
    assert "a prompt must be for a model with a decoder" in capsys.readouterr().err


def test_a_long_prompt_is_cut_to_leave_room(trained):
    _, objective, _ = load_run(trained)
    text = ending(objective, "a long text that does not leave much room for any answer")
    assert "a long text that does not leave much room for any answer".endswith(text)
    assert 8 <= len(text) <= 16
    assert ending(objective, "short") == "short"
