"""The short convolution is held to torch's, document by document, and to its own tail."""

import pytest
import torch
from torch.nn import functional as F

from blocks.contracts import Layout
from blocks.linear._short import ShortConvolution, aligned, restored


def test_it_is_a_causal_convolution_of_each_channel():
    conv = ShortConvolution(6, 4, bias=True).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    kernel = conv.weight.flip(0).T[:, None]  # torch's last weight is the token itself
    expected = F.silu(F.conv1d(F.pad(x.mT, (3, 0)), kernel, conv.bias, groups=6).mT)
    torch.testing.assert_close(conv(x, Layout.full(2, 9))[0], expected, rtol=1e-12, atol=1e-12)


def test_it_sees_no_further_than_its_document():
    conv = ShortConvolution(6, 4).double()
    x = torch.randn(1, 9, 6, dtype=torch.float64)
    packed, _ = conv(x, Layout.packed(torch.tensor([[0, 0, 1, 1, 1, 1, 1, 2, 2]])))
    parts = [conv(x[:, a:b], Layout.full(1, b - a))[0] for a, b in ((0, 2), (2, 7), (7, 9))]
    torch.testing.assert_close(packed, torch.cat(parts, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_its_gradients_are_those_of_its_values(size):
    conv = ShortConvolution(3, size, bias=True).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    tail = torch.randn(2, size - 1, 3, dtype=torch.float64, requires_grad=True)
    begun = Layout(
        torch.tensor([[3, 4, 0, 1, 2, 3, 4], [0, 1, 2, 3, 0, 1, -1]]), torch.tensor([[0, 0, 1, 1, 1, 1, 1]] * 2)
    )
    for layout in (Layout.full(2, 7), begun):
        assert torch.autograd.gradcheck(lambda x, t, *_: conv(x, layout, t)[0], (x, tail, *conv.parameters()))  # noqa: B023


def test_its_tail_is_the_last_real_tokens():
    conv = ShortConvolution(2, 3)
    x = torch.arange(10.0).reshape(1, 5, 2)
    layout = Layout(torch.tensor([[4, 5, 6, -1, -1]]), torch.tensor([[0, 0, 0, -1, -1]]))
    _, tail = conv(x, layout, conv.empty_tail(1))
    assert tail.tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    _, tail = conv(x[:, :1], Layout(torch.tensor([[-1]]), torch.tensor([[-1]])), tail)
    assert tail.tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    _, tail = conv(x[:, :1], Layout(torch.tensor([[7]]), torch.tensor([[0]])), tail)
    assert tail.tolist() == [[[4.0, 5.0], [0.0, 1.0]]]


def test_a_kernel_of_one_sees_no_neighbour_and_keeps_none():
    conv = ShortConvolution(2, 1)
    x = torch.randn(1, 5, 2)
    y, tail = conv(x, Layout.full(1, 5), conv.empty_tail(1))
    torch.testing.assert_close(y, F.silu(x * conv.weight))
    assert tail.shape == (1, 0, 2)


def test_aligning_moves_padding_behind_and_restoring_undoes_it():
    x = torch.arange(6.0).reshape(1, 6, 1)
    layout = Layout(torch.tensor([[-1, 0, -1, 1, 0, -1]]), torch.tensor([[-1, 0, -1, 0, 1, -1]]))
    moved, at, order = aligned(x, layout)
    assert moved.flatten().tolist() == [1, 3, 4, 0, 2, 5]
    assert at.position.tolist() == [[0, 1, 0, -1, -1, -1]]
    assert at.document.tolist() == [[0, 0, 1, -1, -1, -1]]
    assert (restored(moved, order) == x).all()


def test_it_sees_the_token_itself_at_least(refused):
    with refused("conv_size must be at least 1, the token itself, but got 0."):
        ShortConvolution(4, 0)
