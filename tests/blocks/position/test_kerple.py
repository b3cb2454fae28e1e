"""KERPLE's two kernels against their formulas, and how the learned numbers stay in range."""

import math

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.position.kerple import Kerple

KERNELS = pytest.mark.parametrize("kernel", ["log", "power"])


@KERNELS
def test_subtracts_the_published_curve(kernel):
    kerple = Kerple(3, 8, kernel=kernel).double()
    layout, q = Layout.full(2, 6), torch.randn(2, 6, 3, 8, dtype=torch.float64)
    bias = kerple.bias(q, q, layout, layout)
    r1, r2 = (r.tolist() for r in kerple.curve(torch.float64))
    for head in range(3):
        for i in range(6):
            for j in range(6):
                d = abs(i - j)
                curve = r1[head] * (math.log(1 + r2[head] * d) if kernel == "log" else d ** r2[head])
                assert bias[0, head, i, j].item() == pytest.approx(-curve)


@KERNELS
def test_starts_where_the_authors_start(kernel):
    r1, r2 = Kerple(2000, 8, kernel=kernel).curve()
    wide, narrow = (r1, r2) if kernel == "log" else (r2, r1)
    for r, top in ((wide, 2.0), (narrow, 1.0)):
        assert r.min() > 0
        assert r.max() < top
        assert r.mean().item() == pytest.approx(top / 2, rel=0.1)


@KERNELS
def test_stays_in_range_whatever_is_learned(kernel):
    kerple = Kerple(2, 8, kernel=kernel)
    with torch.no_grad():
        kerple.raw_r1.copy_(torch.tensor([-20.0, 20.0]))
        kerple.raw_r2.copy_(torch.tensor([-20.0, 20.0]))
    r1, r2 = kerple.curve()
    assert (r1 > 0).all()
    assert (r2 > 0).all()
    if kernel == "power":
        assert (r2 <= 2).all()


@KERNELS
def test_gradients_are_those_of_the_curve_even_at_distance_zero(kernel):
    kerple, layout, q = Kerple(2, 8, kernel=kernel).double(), Layout.full(1, 3), torch.randn(1, 3, 2, 8).double()

    kerple.bias(q, q, layout, layout).sum().backward()
    for parameter in (kerple.raw_r1, kerple.raw_r2):
        raw = parameter.detach().clone()
        for head in range(2):
            sums = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.copy_(raw)
                    parameter[head] += step
                sums.append(kerple.bias(q, q, layout, layout).sum().item())
            with torch.no_grad():
                parameter.copy_(raw)
            assert parameter.grad[head].item() == pytest.approx((sums[0] - sums[1]) / 2e-6, rel=1e-5)


def test_a_power_of_one_is_alibi_with_learned_slopes():
    kerple = Kerple(1, 8, kernel="power")
    with torch.no_grad():
        kerple.raw_r2.zero_()
    layout, q = Layout.full(1, 4), torch.randn(1, 4, 1, 8)
    r1, _ = kerple.curve()
    assert_close(kerple.bias(q, q, layout, layout)[0, 0, 3], -r1 * torch.tensor([3.0, 2.0, 1.0, 0.0]))
