"""Every start, with every residual, knows nothing: the first loss is that of a uniform guess."""

import math

import pytest
import torch
from torch.nn import functional as F

from blocks.contracts import Layout
from registry import REGISTRY, factory
from registry.plugins import load_builtin

load_builtin()

V, D = 29, 64
ENDS = {
    "apart": {"tie": False},
    "one table": {"tie": True},
    "one factorised table": {"tie": True, "embedding": "embedding/factorised", "head": "head/tied"},
}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("residual", REGISTRY.names("residual"))
@pytest.mark.parametrize("init", REGISTRY.names("init"))
def test_the_first_loss_is_that_of_a_uniform_guess(init, residual, ends):
    layer = {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": 4},
        "mask": "mask/causal",
        "ffn": "ffn/swiglu",
        "residual": residual,
    }
    decoder = {"name": "stack/plain", "layers": [layer] * 2}
    model = factory({"name": "model/decoder_only", "d_model": D, "init": init, "decoder": decoder, **ENDS[ends]})(V)
    tokens, targets = torch.randint(0, V, (8, 24)), torch.randint(0, V, (8, 24))
    with torch.no_grad():
        logits, _ = model.eval()(tokens, Layout.full(8, 24))
    assert abs(F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item() - math.log(V)) < 0.1
