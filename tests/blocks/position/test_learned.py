"""Learned position: the row of the table at each token's place, and nothing past its end."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import PAD, Layout
from blocks.position.learned import Learned


def test_adds_the_row_of_each_place(device):
    learned = Learned(6, 10).to(device)
    position = torch.tensor([[0, 1, 2, 0, 1], [5, 6, 9, PAD, PAD]], device=device)
    x = torch.randn(2, 5, 6, device=device)
    y = learned.embed(x, Layout(position, torch.where(position == PAD, PAD, 0)))
    for row in range(2):
        for t in range(5):
            if position[row, t] != PAD:
                assert torch.equal(y[row, t], x[row, t] + learned.table.weight[position[row, t]])
    assert y.isfinite().all()


def test_a_row_that_is_known_to_be_whole_gets_the_same():
    learned, x, layout = Learned(8, 16), torch.randn(3, 7, 8), Layout.full(3, 7)
    assert torch.equal(learned.embed(x, layout), learned.embed(x, layout._replace(dense=False)))


def test_every_row_in_use_learns():
    learned, x = Learned(4, 8), torch.zeros(3, 5, 4)
    learned.embed(x, Layout.full(3, 5)).sum().backward()
    assert_close(learned.table.weight.grad, torch.tensor([3.0] * 5 + [0.0] * 3)[:, None].expand(8, 4))


def test_starts_as_small_as_it_is_told():
    assert Learned(64, 256, std=0.5).table.weight.std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("dense", [True, False])
def test_refuses_positions_past_the_table(dense):
    learned, x = Learned(4, 8), torch.zeros(2, 9, 4)
    learned.embed(x[:, :8], Layout.full(2, 8)._replace(dense=dense))
    sentence = r"positions must be below model\.max_length, the 8 rows of the learned table, but got 8\."
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        learned.embed(x, Layout.full(2, 9)._replace(dense=dense))


def test_a_late_decoder_step_past_the_table_is_refused():
    step = Layout(torch.tensor([[3], [8]]), torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=r"but got 8\.$"):
        Learned(4, 8).embed(torch.zeros(2, 1, 4), step)
