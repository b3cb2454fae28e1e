"""A part of a composition that has no effect in this run is named."""

import pytest

from registry import factory
from registry.compose import launch
from training.notes import hides_nothing, notes


def spec_of(*words):
    jobs = []
    assert launch(lambda job: jobs.append(job) or job.record(), lambda records: 0, list(words)) == 0
    return jobs[0].spec["model"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_RUNS", str(tmp_path / "runs"))


def test_a_window_as_long_as_the_rows_hides_nothing():
    spec = spec_of("mask=window", "mask.size=32", "decoder.n_layers=2")
    assert notes(spec, 32) == [
        "decoder: mask window (size 32) hides nothing in rows of 32 tokens: it is the same as causal."
    ]
    assert notes(spec, 33) == []


def test_each_policy_of_a_pattern_is_looked_at():
    words = ["decoder.pattern=[local,global]", "decoder.variants.local.mask=chunked", "model=encoder_decoder"]
    spec = spec_of(*words, "decoder.variants.local.mask.size=64", "encoder.mask=window", "encoder.mask.size=4")
    assert notes(spec, 16) == ["decoder: mask chunked hides nothing in rows of 16 tokens: it is the same as causal."]


@pytest.mark.parametrize("causal", [True, False])
def test_plain_policies_are_no_news(causal):
    direction = "mask/causal" if causal else "mask/full"
    assert hides_nothing(factory(direction, ("mask",))(causal), 600)
    assert notes(spec_of(f"model={'decoder_only' if causal else 'encoder_only'}"), 8) == []


def test_one_hidden_pair_of_a_long_row_is_enough():
    window = factory({"name": "mask/window", "size": 599}, ("mask",))
    assert not hides_nothing(window(True), 600)
    assert hides_nothing(window(True), 599)
