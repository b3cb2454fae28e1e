"""A model wide enough to measure deviations in."""

import pytest
import torch

from registry import factory

V, D = 500, 64


def _model(init, tie=False, **decoder):
    layer = {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": 4, "bias": True},
        "mask": "mask/causal",
        "ffn": {"name": "ffn/mlp", "d_ff": 256},
        "residual": "residual/pre_norm",
    }
    stack = {"name": "stack/plain", "layers": [layer] * 3, **decoder}
    torch.manual_seed(0)
    return factory({"name": "model/decoder_only", "d_model": D, "init": init, "tie": tie, "decoder": stack})(V)


@pytest.fixture
def build():
    return _model


@pytest.fixture
def deviation():
    """The standard deviations of all weights whose name ends so, and that they are normal or uniform about zero."""

    def measure(model, end):
        weights = [p for name, p in model.named_parameters() if name.endswith(f"{end}.weight")]
        assert weights, end
        together = torch.cat([w.flatten() for w in weights])
        assert abs(together.mean()) < 0.1 * together.std()
        return together.std().item()

    return measure
