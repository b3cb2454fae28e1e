"""Stochastic depth: rows leave a sublayer out, more often the deeper, and the mean stays."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Site
from blocks.norm.layer import LayerNorm
from blocks.residual.stochastic_depth import StochasticDepth


def _residual(depth=3, rate=0.5):
    return StochasticDepth(8, Site(True, 8, depth=depth, n_layers=4), norm=LayerNorm, rate=rate)


@pytest.mark.parametrize(("depth", "keep"), [(0, 0.875), (1, 0.75), (3, 0.5)])
def test_the_rate_grows_in_a_line_with_depth(depth, keep):
    assert _residual(depth).keep == keep


def test_whole_rows_are_dropped_and_the_others_make_up_for_them():
    x, y = torch.zeros(4000, 2, 8), torch.ones(4000, 2, 8)
    out = _residual(depth=1).write(x, y)
    assert_close(out, out[:, :1, :1].expand_as(out))
    kept = out[:, 0, 0] != 0
    assert_close(out[kept], torch.full_like(out[kept], 1 / 0.75))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_drops_nothing_when_not_training():
    x, y = torch.randn(5, 2, 8), torch.randn(5, 2, 8)
    assert_close(_residual().eval().write(x, y), x + y)


def test_refuses_a_rate_that_leaves_nothing():
    with pytest.raises(ValueError, match=r"^rate must be at least 0 and below 1, but got 1\.0\.$"):
        _residual(rate=1.0)
