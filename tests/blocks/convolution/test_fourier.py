"""Holds the Fourier mixer to the sums of its definition, document by document."""

import cmath
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.convolution.fourier import Fourier

D = 3


def by_hand(x: Tensor) -> Tensor:
    """One document: a sum over tokens and features for each token and feature. (T, D)"""
    T, out = len(x), torch.zeros_like(x)
    for p in range(T):
        for f in range(D):
            terms = (
                x[q, g].item() * cmath.exp(-2j * math.pi * (p * q / T + f * g / D)) for q in range(T) for g in range(D)
            )
            out[p, f] = sum(terms).real
    return out


@pytest.mark.parametrize("scaling", ["none", "unitary"])
def test_tokens_and_features_are_summed_as_waves(scaling: str) -> None:
    x = torch.randn(1, 5, D, dtype=torch.float64)
    y, _ = Fourier(D, Mask(False), scaling=scaling)(x, Layout.full(1, 5))
    assert_close(y[0], by_hand(x[0]) / (1 if scaling == "none" else math.sqrt(5 * D)))


@pytest.mark.parametrize("scaling", ["none", "unitary"])
def test_each_document_has_its_own_transform_and_padding_none(scaling: str) -> None:
    position = torch.tensor([[PAD, 0, 1, PAD, 2, 0, 1, 2, 3], [0, 1, PAD, PAD, 0, 0, 1, PAD, 2]])
    document = torch.tensor([[PAD, 0, 0, PAD, 0, 1, 1, 1, 1], [0, 0, PAD, PAD, 1, 2, 2, PAD, 2]])
    x = torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = Fourier(D, Mask(False), scaling=scaling)(x, Layout(position, document))
    for row in range(2):
        for one in range(int(document[row].max()) + 1):
            at = (document[row] == one).nonzero()[:, 0]
            assert_close(y[row, at], by_hand(x[row, at]) / (1 if scaling == "none" else math.sqrt(len(at) * D)))
    assert not y[document == PAD].any()


def test_a_long_document_in_padding_is_as_exact_as_alone() -> None:
    x = torch.randn(1, 2000, D)
    y, _ = Fourier(D, Mask(False))(x, Layout.padded(torch.tensor([1999]), 2000))
    alone, _ = Fourier(D, Mask(False))(x[:, :1999], Layout.full(1, 1999))
    assert_close(y[:, :1999], alone, rtol=1e-4, atol=1e-5)


def test_the_unitary_transform_keeps_half_the_size_of_noise_in_its_real_part() -> None:
    x = torch.randn(4, 64, 32)
    y, _ = Fourier(32, Mask(False))(x, Layout.full(4, 64))
    assert_close(y.square().mean() / x.square().mean(), torch.tensor(0.5), rtol=0.05, atol=0)


def test_looking_back_only_is_refused() -> None:
    sentence = r"^mask must be full for Fourier, which mixes every token with every other, but got Mask\.$"
    with pytest.raises(ValueError, match=sentence):
        Fourier(D, Mask(True))
    sentence = r"^mask must be causal to go on from a state, but this Fourier reads both ways\.$"
    with pytest.raises(ValueError, match=sentence):
        Fourier(D, Mask(False)).empty_state(1, 1)
