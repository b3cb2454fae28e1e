"""No norm against doing nothing."""

import torch

from blocks.norm.none import NoNorm


def test_features_pass_as_they_are():
    x = torch.randn(2, 3, 8)
    assert NoNorm(8)(x) is x
