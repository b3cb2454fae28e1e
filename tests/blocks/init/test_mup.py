"""The maximal-update start: how each kind of weight follows the width."""

import pytest

from blocks.init.mup import MuP


@pytest.mark.parametrize("base_width", [16, 64, 256])
def test_hidden_weights_follow_the_root_of_the_width_scores_the_width_and_embeddings_nothing(
    build, deviation, base_width
):
    model, wider = build({"name": "init/mup", "std": 0.1, "base_width": base_width}), 64 / base_width
    assert deviation(model, "table") == pytest.approx(0.1, rel=0.05)
    assert deviation(model, "to_q") == pytest.approx(0.1 * wider**-0.5, rel=0.05)
    assert deviation(model, "ffn.to_out") == pytest.approx(0.1 * (4 * wider) ** -0.5, rel=0.05)
    assert deviation(model, "to_logits") == pytest.approx(0.1 / wider, rel=0.05)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"std": -1.0}, r"std must be positive, but got -1\.0\."),
        ({"base_width": 0}, r"base_width must be positive, but got 0\."),
    ],
)
def test_refuses(choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MuP(**choices)
