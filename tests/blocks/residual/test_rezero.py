"""ReZero: x + a f(x) with a at zero."""

import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.residual.rezero import ReZero


def test_starts_as_the_identity_and_follows_its_number():
    residual, x, y = ReZero(8, Site(causal=True, max_length=8)), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    assert residual.read(x) is x
    assert torch.equal(residual.write(x, y), x)
    residual.weight.data.fill_(-1.5)
    assert_close(residual.write(x, y), x - 1.5 * y)
    assert not residual.final_norm
