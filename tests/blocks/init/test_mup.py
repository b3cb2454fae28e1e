"""The maximal-update start: how each kind of weight follows the width, and the logits of a shared table."""

import pytest
import torch

from blocks.contracts import Layout
from blocks.init.mup import MuP
from registry import factory


@pytest.mark.parametrize("base_width", [16, 64, 256])
def test_hidden_weights_follow_the_root_of_the_width_scores_the_width_and_embeddings_nothing(
    build, deviation, base_width
):
    model, wider = build({"name": "init/mup", "std": 0.1, "base_width": base_width}), 64 / base_width
    assert deviation(model, "table") == pytest.approx(0.1, rel=0.05)
    assert deviation(model, "to_q") == pytest.approx(0.1 * wider**-0.5, rel=0.05)
    assert deviation(model, "ffn.to_out") == pytest.approx(0.1 * (4 * wider) ** -0.5, rel=0.05)
    assert deviation(model, "to_logits") == pytest.approx(0.1 / wider, rel=0.05)


def wide(d_model, **choices):
    """A decoder of this width, whose head shares the embedding's table."""
    layer = {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": 4},
        "mask": "mask/causal",
        "ffn": "ffn/mlp",
        "residual": "residual/pre_norm",
    }
    decoder = {"name": "stack/plain", "layers": [layer]}
    spec = {"name": "model/decoder_only", "d_model": d_model, "init": "init/mup", "decoder": decoder, **choices}
    torch.manual_seed(0)
    return factory(spec)(500)


@pytest.mark.parametrize("head", ["head/linear", "head/tied"])
def test_a_shared_table_is_that_of_an_embedding_at_every_width(head, deviation):
    for d_model in (64, 256):
        assert deviation(wide(d_model, head=head), "table") == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("head", ["head/linear", "head/tied"])
def test_logits_of_a_shared_table_are_divided_by_how_much_wider_the_model_is(head):
    model = wide(256, head=head)
    x, layout = torch.randn(2, 3, 256), Layout.full(2, 3)
    logits, targets = x @ model.embedding.table.weight.T / 4, torch.randint(0, 500, (2, 3))
    torch.testing.assert_close(model.head(x, layout), logits)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model.head.loss(x, layout, targets), expected)


def test_a_narrow_table_and_its_projection_follow_their_own_inputs(deviation):
    narrow = {"name": "embedding/factorised", "d_embedding": 16}
    model = wide(256, head="head/tied", embedding=narrow)
    assert model.head.multiplier == 0.25
    assert deviation(model, "table") == pytest.approx(0.02, rel=0.05)
    assert deviation(model, "to_stream") == pytest.approx(0.02 * 2, rel=0.05)


def test_other_schemes_leave_the_logits_alone():
    assert wide(256, init="init/gpt2").head.multiplier == 1.0
    assert wide(256, tie=False).head.multiplier == 1.0


def test_logits_of_every_width_move_alike_as_features_line_up_with_their_row():
    """Where the stream points along the row of a token, as it does after learning, its logit keeps its size."""
    logits = []
    for d_model in (64, 1024):
        model = wide(d_model)
        row = model.embedding.table.weight[3]
        x = (row / row.square().mean().sqrt()).expand(1, 1, -1)  # a normed stream
        logits.append(model.head(x, Layout.full(1, 1))[0, 0, 3].item())
    assert logits[1] == pytest.approx(logits[0], rel=0.2)


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
