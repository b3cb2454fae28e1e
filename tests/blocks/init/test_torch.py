"""Torch's own start, but for what makes the logits."""

import pytest


@pytest.mark.parametrize(("end", "inputs"), [("to_q", 64), ("to_hidden", 64), ("ffn.to_out", 256)])
def test_linear_layers_are_uniform_within_the_inverse_root_of_their_inputs(build, deviation, end, inputs):
    model = build("init/torch")
    assert deviation(model, end) == pytest.approx((3 * inputs) ** -0.5, rel=0.05)
    weights = [p for name, p in model.named_parameters() if name.endswith(f"{end}.weight")]
    assert all(p.abs().max() <= inputs**-0.5 for p in weights)


def test_an_embedding_of_its_own_is_standard_normal_and_the_scores_start_small(build, deviation):
    model = build("init/torch")
    assert deviation(model, "table") == pytest.approx(1.0, rel=0.05)
    assert deviation(model, "to_logits") == pytest.approx(0.3 / 64**0.5, rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("to_logits.bias"))


def test_a_table_that_scores_too_starts_small(build, deviation):
    assert deviation(build("init/torch", tie=True), "table") == pytest.approx(0.02, rel=0.05)
