"""GPT-2's start: one deviation, narrower where sublayers add up in the stream."""

import pytest
import torch

from blocks.init.gpt2 import Gpt2


def test_every_weight_has_the_deviation_and_every_bias_is_zero(build, deviation):
    model = build("init/gpt2")
    for end in ("table", "to_q", "to_k", "to_v", "to_hidden", "to_logits"):
        assert deviation(model, end) == pytest.approx(0.02, rel=0.05)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(("stack", "writers"), [({}, 6), ({"name": "stack/looped", "passes": 3}, 18)])
def test_what_writes_into_the_stream_is_narrower_by_the_root_of_how_often(build, deviation, stack, writers):
    assert deviation(build("init/gpt2", **stack), "to_out") == pytest.approx(0.02 / writers**0.5, rel=0.05)


def test_a_shared_table_is_one_of_the_weights(build, deviation):
    model = build({"name": "init/gpt2", "std": 0.5}, tie=True)
    assert deviation(model, "table") == pytest.approx(0.5, rel=0.05)


def test_leaves_parameters_that_are_not_of_linear_layers_alone():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

    own = Own()
    Gpt2()(own)
    assert torch.equal(own.weight, torch.ones(3))


def test_refuses_a_deviation_that_is_not_positive():
    with pytest.raises(ValueError, match=r"^std must be positive, but got 0\.0\.$"):
        Gpt2(std=0.0)
