"""No residual: a chain of functions."""

import torch

from blocks.contracts import Site
from blocks.residual.none import NoResidual

SITE = Site(causal=True, max_length=8)


def test_the_sublayer_sees_the_stream_and_replaces_it():
    residual, x, y = NoResidual(8, SITE), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert residual.read(x) is x
    assert residual.write(x, y) is y
    assert not residual.final_norm
