"""Scale norm: every token the same length."""

import pytest
import torch
from torch.testing import assert_close

from blocks.norm.scale import ScaleNorm


def test_every_token_has_the_learned_length_and_its_own_direction():
    norm, x = ScaleNorm(16), torch.randn(2, 3, 16)
    norm.length.data.fill_(2.5)
    y = norm(x)
    assert_close(y.norm(dim=-1), torch.full((2, 3), 2.5))
    assert_close(y / 2.5, x / x.norm(dim=-1, keepdim=True))


def test_starts_at_the_root_of_the_width():
    assert_close(ScaleNorm(16)(torch.randn(3, 16)).norm(dim=-1), torch.full((3,), 4.0))


def test_a_token_shorter_than_eps_stays_short():
    assert_close(ScaleNorm(4, eps=1.0)(torch.tensor([0.5, 0.0, 0.0, 0.0])), torch.tensor([1.0, 0.0, 0.0, 0.0]))


def test_refuses_an_eps_that_is_not_positive():
    with pytest.raises(ValueError, match=r"^eps must be positive, but got 0\.$"):
        ScaleNorm(8, eps=0)
