"""Holds the scan to the loop it stands for: values, gradients, documents, directions, rounds and growth."""

import time

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from blocks.contracts import PAD, Layout
from blocks.recurrent._scan import _down, _up, rounds, scan, scan_both_ways, scan_documents

POSITION = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [3, 4, PAD, PAD, 0, 0, 1, PAD, 2]])
DOCUMENT = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, PAD], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])
RAGGED = Layout(POSITION, DOCUMENT)


def loop(a: Tensor, b: Tensor, reverse: bool = False, h: Tensor | None = None) -> Tensor:
    out = [torch.zeros(())] * a.shape[1]
    h = torch.zeros_like(b[:, 0]) if h is None else h
    for t in reversed(range(a.shape[1])) if reverse else range(a.shape[1]):
        out[t] = h = a[:, t] * h + b[:, t]
    return torch.stack(out, dim=1)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return 0.9 * torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_every_length_gives_the_loop(reverse: bool, dtype: torch.dtype) -> None:
    for length in [*range(1, 35), 63, 64, 65, 100]:
        a, b = draw(2, length, 3, dtype=dtype)
        assert_close(scan(a, b, reverse), loop(a, b, reverse))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_gradients_are_the_loops_to_second_order(reverse: bool, length: int) -> None:
    a, b = (t.requires_grad_() for t in draw(2, length, 2, dtype=torch.complex128))
    assert torch.autograd.gradcheck(lambda a, b: scan(a, b, reverse), (a, b))
    if length > 1:
        assert torch.autograd.gradgradcheck(lambda a, b: scan(a, b, reverse), (a, b))


def test_gates_of_zero_and_one_over_a_long_row_lose_nothing() -> None:
    a, b = torch.ones(1, 5000, 2, dtype=torch.float64), torch.ones(1, 5000, 2, dtype=torch.float64)
    a[:, 3000] = 0.0
    h = scan(a, b)
    assert h[0, 2999, 0] == 3000
    assert h[0, 4999, 0] == 2000


def test_a_document_starts_from_zero_and_padding_is_stepped_over() -> None:
    a, b = draw(2, 9, 3)
    past = torch.randn(2, 3, dtype=torch.float64)
    h = scan_documents(a, b, RAGGED, past)
    for row in range(2):
        for document in range(int(DOCUMENT[row].max()) + 1):
            at = (DOCUMENT[row] == document).nonzero()[:, 0]
            before = past[row : row + 1] if POSITION[row, at[0]] else None
            assert_close(h[row, at], loop(a[row : row + 1, at], b[row : row + 1, at], h=before)[0])
    assert_close(h[0, -1], h[0, -2])


def test_the_other_half_of_the_features_runs_from_the_end_of_each_document() -> None:
    a, b = draw(2, 9, 6)
    h = scan_both_ways(a, b, RAGGED)
    for row in range(2):
        for document in range(int(DOCUMENT[row].max()) + 1):
            at = (DOCUMENT[row] == document).nonzero()[:, 0]
            one, two = a[row : row + 1, at], b[row : row + 1, at]
            assert_close(h[row, at, :3], loop(one[..., :3], two[..., :3])[0])
            assert_close(h[row, at, 3:], loop(one[..., 3:], two[..., 3:], reverse=True)[0])


def test_later_tokens_change_nothing_before_them() -> None:
    a, b = draw(1, 37, 4)
    before = scan(a, b)
    for cut in (1, 16, 31, 36):
        later = [torch.cat([t[:, :cut], torch.randn_like(t[:, cut:])], dim=1) for t in (a, b)]
        assert torch.equal(scan(*later)[:, :cut], before[:, :cut])


def test_rounds_grow_as_twice_the_logarithm() -> None:
    assert [rounds(n) for n in (1, 2, 4, 1024, 16384)] == [1, 1, 3, 19, 27]
    for length in (1, 5, 64, 100):
        work = sum(len(later) for later, _ in _up(length) + _down(length))
        assert work <= 2 * length


def test_time_grows_with_length() -> None:
    def seconds(length: int) -> float:
        a, b = (t.requires_grad_() for t in draw(1, length, 16))
        times = []
        for _ in range(5):
            start = time.process_time()
            scan(a, b).sum().backward()
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(16384) < 20 * seconds(1024)


def test_the_scan_compiles_with_its_gradient() -> None:
    a, b = (t.requires_grad_() for t in draw(2, 9, 3))
    expected = torch.autograd.grad(loop(a, b).square().sum(), [a, b])
    compiled = torch.compile(lambda a, b: scan(a, b).square().sum(), backend="aot_eager", fullgraph=True)
    for got, want in zip(torch.autograd.grad(compiled(a, b), [a, b]), expected, strict=True):
        assert_close(got, want)
