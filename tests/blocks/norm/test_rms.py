"""RMS norm against its formula and torch's own, forward and backward, in every precision."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from blocks.norm.rms import RMSNorm


def _norm(dtype, eps=1e-6):
    norm = RMSNorm(8, eps=eps).to(dtype)
    torch.nn.init.normal_(norm.weight)
    return norm


def test_matches_the_formula():
    norm, x = _norm(torch.float64, eps=0.1), torch.randn(2, 3, 8, dtype=torch.float64)
    y = norm(x)
    for b in range(2):
        for t in range(3):
            size = (sum(f * f for f in x[b, t]) / 8 + 0.1) ** 0.5
            assert_close(y[b, t], x[b, t] / size * norm.weight)


def test_gradients_are_those_of_numbers_nearby():
    norm, x = _norm(torch.float64, eps=0.1), torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(norm, {"weight": w}, (x,)), (x, norm.weight)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_gradients_are_those_of_exact_numbers(dtype, tolerance):
    """In bfloat16 the sums over features and tokens are still made in float32."""
    norm, x, push = _norm(dtype), torch.randn(40, 25, 8, dtype=dtype, requires_grad=True), torch.randn(40, 25, 8)
    norm(x).backward(push.to(dtype))
    exact_x = x.detach().double().requires_grad_()
    exact_w = norm.weight.detach().double().requires_grad_()
    F.rms_norm(exact_x, (8,), exact_w, 1e-6).backward(push.to(dtype).double())
    for got, exact in ((x.grad, exact_x.grad), (norm.weight.grad, exact_w.grad)):
        assert got.dtype == dtype
        assert (got.double() - exact).norm() < tolerance * exact.norm()


def test_a_zero_token_stays_zero():
    x = torch.zeros(2, 8, requires_grad=True)
    y = _norm(torch.float32)(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_compiled_takes_the_other_way_to_the_same_numbers():
    norm, x = _norm(torch.float32), torch.randn(2, 8)
    assert_close(torch.compile(norm, backend="eager")(x), norm(x))


def test_keeps_a_stream_of_low_precision_beside_weights_of_high():
    assert RMSNorm(8)(torch.randn(3, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_refuses_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"^eps must be positive, but got -1\.$"):
        RMSNorm(8, eps=-1)
