"""Samples: a decoder speaks at the end of a run, anything else stays silent, and nothing ends the run."""

import pytest

from training.callback.sample import Sample
from training.run import run


def test_a_decoder_goes_on_from_the_validation_text(make_job, capsys):
    run(make_job(callbacks=[{"name": "sample", "n": 2}], trainer={"max_steps": 2}))
    printed = capsys.readouterr().out
    assert "\nsamples\n" in printed
    assert printed.index("validation") < printed.index("samples") < printed.index("done")


def test_the_answer_to_a_source_stands_behind_an_arrow(make_job, capsys):
    job = make_job(
        model={"name": "encoder_decoder"},
        encoder={"n_layers": 1},
        data={"name": "reverse"},
        callbacks=["sample"],
        trainer={"max_steps": 2},
    )
    run(job)
    assert "  ->  " in capsys.readouterr().out


def test_an_encoder_stays_silent(make_job, capsys):
    record = run(
        make_job(
            model={"name": "encoder_only"}, encoder={"n_layers": 1}, callbacks=["sample"], trainer={"max_steps": 2}
        )
    )
    assert record.status == "done"
    assert "sample" not in capsys.readouterr().out.split("unigram")[1]


def test_a_model_that_can_not_speak_has_been_trained_all_the_same(make_job, capsys, monkeypatch):
    from blocks.model.decoder_only import DecoderOnly

    def refuse(self, rows, capacity):
        raise ValueError("mixer must have a state to go on from, but got none.")

    job = make_job(callbacks=["sample"], trainer={"max_steps": 2})
    monkeypatch.setattr(DecoderOnly, "empty_state", refuse)
    assert run(job).status == "done"
    assert "no sample: mixer must have a state to go on from, but got none." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"n": 0}, "n and max_new_tokens must be at least 1, but got 0 and 200."),
        ({"temperature": -0.1}, "temperature must be a finite number and not negative, but got -0.1."),
        ({"temperature": float("nan")}, "temperature must be a finite number and not negative, but got nan."),
    ],
)
def test_refusals(choices, sentence):
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        Sample(**choices)
