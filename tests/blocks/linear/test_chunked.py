"""The chunked sums are held to their recurrences, one token after another, for decays of any size."""

import pytest
import torch
from torch import Tensor

from blocks.contracts import Layout
from blocks.linear._chunked import backwards, both_ways, channels, delta, everywhere, fading


def one_by_one(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, beta: Tensor | None = None) -> Tensor:
    """``S <- a S``, then ``S <- S + k r^T`` with r = v, or b (v - S^T k) where there is a b; read ``S^T q``."""
    s, out = torch.zeros(*q.shape[:1], *q.shape[2:], v.shape[-1], dtype=q.dtype), []
    for t in range(q.shape[1]):
        if log_decay is not None:
            a = log_decay[:, t].exp()
            s = (a[..., None, None] if a.dim() == 2 else a[..., None]) * s
        r = v[:, t] if beta is None else beta[:, t, :, None] * (v[:, t] - torch.einsum("bhkv,bhk->bhv", s, k[:, t]))
        s = s + torch.einsum("bhk,bhv->bhkv", k[:, t], r)
        out.append(torch.einsum("bhkv,bhk->bhv", s, q[:, t]))
    return torch.stack(out, 1)


def case(kind: str, decay: str, length: int = 50) -> tuple[tuple, dict]:
    """Inputs of a scan by name, and the same for the loop."""
    q, k = torch.randn(2, 2, length, 3, 4, dtype=torch.float64)
    k = k / k.norm(dim=-1, keepdim=True)
    v = torch.randn(2, length, 3, 5, dtype=torch.float64)
    shape = (2, length, 3, 4) if kind == "channels" else (2, length, 3)
    g = -{
        "none": torch.zeros(shape),
        "mild": torch.rand(shape),
        "strong": 700 * torch.rand(shape),
        "all": 1e6 * torch.rand(shape) + 1e4,
        "mixed": torch.where(torch.rand(shape) < 0.2, 1e4, 1e-3),
        "infinite": torch.where(torch.rand(shape) < 0.2, torch.inf, 1e-3),
    }[decay].double()
    beta = torch.rand(2, length, 3, dtype=torch.float64)
    inputs = (q, k, v, beta, g) if kind == "delta" else (q, k, v, g)
    return inputs, {"q": q, "k": k, "v": v, "log_decay": g, "beta": beta if kind == "delta" else None}


SCANS = {"fading": fading, "channels": channels, "delta": delta}
DECAYS = ["none", "mild", "strong", "all", "mixed", "infinite"]


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("kind", SCANS)
def test_values_and_gradients_are_those_of_the_recurrence(kind, decay):
    inputs, named = case(kind, decay)
    for t in inputs:
        t.requires_grad_()
    out, _ = SCANS[kind](*inputs, Layout.full(2, 50), None)
    expected = one_by_one(**named)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), inputs)
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("kind", SCANS)
def test_float32_stays_near_float64_and_finite_whatever_the_decay(kind, decay):
    inputs, named = case(kind, decay, length=200)
    rough = [t.float().requires_grad_() for t in inputs]
    out, _ = SCANS[kind](*rough, Layout.full(2, 200), None)
    torch.testing.assert_close(out.double(), one_by_one(**named), rtol=1e-3, atol=1e-3)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), rough))


@pytest.mark.parametrize("kind", SCANS)
def test_a_later_token_changes_nothing_before_it_to_the_last_bit(kind):
    inputs, _ = case(kind, "mild")
    before, _ = SCANS[kind](*inputs, Layout.full(2, 50), None)
    for t in inputs:
        t[:, 23:] *= 3
    after, _ = SCANS[kind](*inputs, Layout.full(2, 50), None)
    assert (before[:, :23] == after[:, :23]).all()
    assert (before[:, 23:] != after[:, 23:]).all()


@pytest.mark.parametrize("kind", SCANS)
def test_what_padding_holds_is_never_written(kind):
    inputs, _ = case(kind, "mild")
    layout = Layout.packed(torch.tensor([[0] * 20 + [-1] * 7 + [1] * 23, [-1] * 5 + [0] * 45]))
    s = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    out, end = SCANS[kind](*inputs, layout, s)
    for t in inputs:
        t[~layout.real] *= -9
    again, end_again = SCANS[kind](*inputs, layout, s)
    assert (end == end_again).all()
    assert (out == again)[layout.real].all()


def test_one_key_for_all_heads_is_the_same_key_for_each():
    (q, k, v, g), _ = case("fading", "mild")
    shared, _ = fading(q[:, :, :1], k[:, :, :1], v, g, Layout.full(2, 50), None)
    each, _ = fading(q[:, :, :1].expand_as(q), k[:, :, :1].expand_as(k), v, g, Layout.full(2, 50), None)
    torch.testing.assert_close(shared, each, rtol=1e-12, atol=1e-12)


def test_everywhere_is_the_sum_over_the_document_packed_or_not():
    (q, k, v, _), _ = case("fading", "none")
    layout = Layout.packed(torch.tensor([[0] * 20 + [-1] * 7 + [1] * 23, [-1] * 5 + [0] * 45]))
    out = everywhere(q, k, v, layout)
    for row, number in ((0, 0), (0, 1), (1, 0)):
        at = layout.document[row] == number
        whole = torch.einsum("tha,sha,shv->thv", q[row, at], k[row, at], v[row, at])
        torch.testing.assert_close(out[row, at], whole, rtol=1e-9, atol=1e-9)
    dense = everywhere(q, k, v, Layout.full(2, 50))
    torch.testing.assert_close(dense, torch.einsum("btha,bsha,bshv->bthv", q, k, v), rtol=1e-9, atol=1e-9)


def test_a_layout_backwards_numbers_each_document_from_its_end():
    layout = Layout(torch.tensor([[-1, 0, 1, -1, 2, 0, 1, -1]]), torch.tensor([[-1, 0, 0, -1, 0, 1, 1, -1]]))
    back = backwards(layout)
    assert back.position.tolist() == [[-1, 0, 1, 0, -1, 1, 2, -1]]
    assert back.document.tolist() == [[-1, 1, 1, 0, -1, 0, 0, -1]]
    assert (backwards(back).position == layout.position).all()


def test_both_ways_is_the_mean_of_the_two_readings():
    x = torch.randn(1, 6, 2)
    layout = Layout.packed(torch.tensor([[0, 0, 0, 0, 1, 1]]))
    out = both_ways(lambda at, x: x * at.position[..., None], layout, x)
    torch.testing.assert_close(out, x * torch.tensor([1.5, 1.5, 1.5, 1.5, 0.5, 0.5])[:, None])
