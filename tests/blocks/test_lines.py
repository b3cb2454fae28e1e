"""Holds lines to what stands where, and convolutions along them to the loop they stand for."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import PAD, Layout
from blocks.lines import Recent, convolve, convolve_flops, convolve_near, line_up, neighbours

LENGTHS = [1, 2, 3, 7, 31, 32, 33, 64, 65, 129, 200]


def rows(*positions: list[int]) -> Layout:
    """Positions in rows; a document starts where one is 0."""
    position = torch.tensor(positions)
    document = (position == 0).cumsum(1)
    return Layout(position, document.masked_fill(position == PAD, PAD))


RAGGED = rows([PAD, 0, 1, PAD, 2, 0, 1, 2, PAD], [3, 4, PAD, PAD, 0, 0, 1, PAD, 2])
NAMES = torch.arange(1.0, 19.0).view(2, 9, 1)  # each token is a number


def loop(u: Tensor, taps: Tensor, run: Tensor | None = None, block: int | None = None) -> Tensor:
    """Each token's sum over the tokens up to it, term by term."""
    rows, out = range(len(u)), []
    for t in range(u.shape[1]):
        first = 0 if block is None else t // block * block
        seen = [[s for s in range(first, t + 1) if run is None or run[row, s] == run[row, t]] for row in rows]
        out.append(torch.stack([(taps[[t - s for s in seen[row]]] * u[row, seen[row]]).sum(0) for row in rows]))
    return torch.stack(out, dim=1)


# Lines -------------------------------------------------------------------------------------------------------------


def test_real_tokens_stand_side_by_side_at_one_end() -> None:
    right, left = line_up(NAMES, RAGGED), line_up(NAMES, RAGGED, end="left")
    assert right.x[..., 0].tolist() == [[0, 0, 0, 2, 3, 5, 6, 7, 8], [0, 0, 0, 10, 11, 14, 15, 16, 18]]
    assert left.x[..., 0].tolist() == [[2, 3, 5, 6, 7, 8, 0, 0, 0], [10, 11, 14, 15, 16, 18, 0, 0, 0]]
    for line in (right, left):
        assert_close(line.restore(line.x), NAMES * RAGGED.real[..., None])


def test_a_run_is_a_document() -> None:
    run = line_up(NAMES, RAGGED).run
    assert run is not None
    for row, lengths in enumerate(([3, 3], [2, 1, 3])):
        ids = run[row, 3:].tolist()
        expected = [i for i, n in enumerate(lengths) for _ in range(n)]
        assert [[a == b for b in ids] for a in ids] == [[a == b for b in expected] for a in expected]


def test_a_dense_row_is_a_line_already() -> None:
    line = line_up(NAMES, Layout.full(2, 9))
    assert line.x is NAMES
    assert line.run is None
    assert line.restore(NAMES) is NAMES


def test_what_was_seen_stands_before_and_the_newest_is_kept() -> None:
    past = Recent(torch.tensor([[[0.0], [70.0]], [[80.0], [90.0]]]), torch.tensor([[PAD, 7], [1, 2]]))
    line = line_up(NAMES, RAGGED, past)
    assert line.x[..., 0].tolist() == [[0, 0, 0, 0, 70, 2, 3, 5, 6, 7, 8], [0, 0, 0, 80, 90, 10, 11, 14, 15, 16, 18]]
    assert_close(line.restore(line.x), NAMES * RAGGED.real[..., None])
    kept = line.recent(past)
    assert kept.x[..., 0].tolist() == [[7, 8], [16, 18]]
    assert kept.position.tolist() == [[1, 2], [1, 2]]
    blank = torch.full((2, 1), PAD)
    held = line_up(NAMES[:, :1], Layout(blank, blank), kept).recent(kept)
    assert torch.equal(held.x, kept.x)
    assert torch.equal(held.position, kept.position)


def test_what_is_kept_stays_in_the_dtype_of_what_was() -> None:
    past = Recent(torch.zeros(2, 2, 1, dtype=torch.bfloat16), torch.full((2, 2), PAD))
    assert line_up(NAMES, RAGGED, past).recent(past).x.dtype == torch.bfloat16


def test_layers_share_where_tokens_go() -> None:
    layout = RAGGED.fresh()
    assert line_up(NAMES, layout).place.data_ptr() == line_up(NAMES, layout).place.data_ptr()
    assert line_up(NAMES, layout).place.data_ptr() != line_up(NAMES, layout, end="left").place.data_ptr()


# Convolutions ------------------------------------------------------------------------------------------------------


def test_neighbours_end_with_the_document() -> None:
    line = line_up(NAMES, RAGGED)
    before, itself, after = (n[:, 3:, 0].tolist() for n in neighbours(line.x, line.run, 1, 1))
    assert before == [[0, 2, 3, 0, 6, 7], [0, 10, 0, 0, 15, 16]]
    assert itself == [[2, 3, 5, 6, 7, 8], [10, 11, 14, 15, 16, 18]]
    assert after == [[3, 5, 0, 7, 8, 0], [11, 0, 0, 16, 18, 0]]


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_short_convolution_is_its_loop(ahead: int) -> None:
    u, taps = torch.randn(2, 9, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    run = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2], [0] * 9])
    expected = torch.zeros_like(u)
    for t in range(9):
        for i, tap in enumerate(taps):
            s = t - (3 - ahead) + i
            if 0 <= s < 9:
                expected[:, t] += tap * u[:, s] * (run[:, s] == run[:, t])[:, None]
    assert_close(convolve_near(u, taps, run, ahead), expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_long_convolution_is_its_loop(length: int) -> None:
    u, taps = torch.randn(2, length, 2, dtype=torch.float64), torch.randn(length, 2, dtype=torch.float64)
    assert_close(convolve(u, taps), loop(u, taps))
    run = (torch.rand(2, length) < 0.05).long().cumsum(1)
    assert_close(convolve(u, taps, run), loop(u, taps, run))


@pytest.mark.parametrize("packed", [False, True])
def test_a_convolution_in_blocks_leaves_the_pairs_between_them_out(packed: bool) -> None:
    u, taps = torch.randn(1, 192, 2, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)
    run = (torch.arange(192) // 23)[None] if packed else None
    assert_close(convolve(u, taps, run, block=64), loop(u, taps, run, block=64))


@pytest.mark.parametrize("packed", [False, True])
def test_later_tokens_change_nothing_before_them_not_even_by_rounding(packed: bool) -> None:
    u, taps = torch.randn(1, 300, 2), torch.randn(300, 2)
    run = (torch.arange(300) // 180)[None] if packed else None
    before = convolve(u, taps, run)
    for cut in (1, 33, 64, 129, 256, 299):
        other = torch.cat([u[:, :cut], 1e6 * torch.randn(1, 300 - cut, 2)], dim=1)
        assert torch.equal(convolve(other, taps, run)[:, :cut], before[:, :cut])


def test_gradients_are_the_loops() -> None:
    u = torch.randn(2, 150, 2, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(150, 2, dtype=torch.float64, requires_grad=True)
    run = (torch.arange(150) // 90).expand(2, -1)
    weight = torch.randn(2, 150, 2, dtype=torch.float64)
    for packed in (None, run):
        got = torch.autograd.grad((convolve(u, taps, packed) * weight).sum(), [u, taps])
        expected = torch.autograd.grad((loop(u, taps, packed) * weight).sum(), [u, taps])
        for g, e in zip(got, expected, strict=True):
            assert_close(g, e)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("block", [None, 64])
def test_products_are_counted(length: int, block: int | None) -> None:
    u, taps = torch.empty(1, length, 5, device="meta"), torch.empty(length, 5, device="meta")
    with FlopCounterMode(display=False) as counter:
        convolve(u, taps, block=block)
    assert convolve_flops(length, 5, block) == counter.get_total_flops()


def test_halves_with_nothing_behind_them_are_left_out() -> None:
    """70 tokens are three blocks of 32, and the first half of only one pair of them has a second half."""
    assert convolve_flops(70, 1) == 2 * (3 + 1) * 32 * 32


def test_autocast_rounds_no_long_convolution() -> None:
    u, taps = torch.randn(1, 100, 2), torch.randn(100, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(u, taps)
    assert torch.equal(y, convolve(u, taps))
    half = convolve(u.bfloat16(), taps)
    assert half.dtype == torch.bfloat16
    assert_close(half, convolve(u.bfloat16().float(), taps).bfloat16())
