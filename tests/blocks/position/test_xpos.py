"""xPos against its definition channel by channel, and the direction it demands."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Mask
from blocks.position.rope import Rope
from blocks.position.xpos import XPos

PAIRINGS = pytest.mark.parametrize("pairing", ["interleaved", "half"])


def pair(channel, pairing, K):
    return channel // 2 if pairing == "interleaved" else channel % (K // 2)


@PAIRINGS
def test_is_rope_with_queries_stretched_and_keys_shrunk(pairing):
    K = 8
    xpos, rope = XPos(2, K, scale_base=64.0, pairing=pairing), Rope(2, K, pairing=pairing)
    x, layout = torch.randn(2, 5, 2, K, dtype=torch.float64), Layout.full(2, 5)
    query, key, turned = (p.rotate(x, layout, r) for p, r in ((xpos, "query"), (xpos, "key"), (rope, "key")))
    for t in range(5):
        for channel in range(K):
            stretch = ((2 * pair(channel, pairing, K) / K + 0.4) / 1.4) ** (t / 64.0)
            assert_close(query[:, t, :, channel], turned[:, t, :, channel] * stretch)
            assert_close(key[:, t, :, channel], turned[:, t, :, channel] / stretch)


def test_products_fade_with_distance_alone():
    xpos = XPos(1, 8)
    ones = torch.ones(1, 1, 1, 8, dtype=torch.float64)

    def product(i, j):
        q, k = (Layout(torch.tensor([[p]]), torch.tensor([[0]])) for p in (i, j))
        return (xpos.rotate(ones, q, "query") * xpos.rotate(ones, k, "key")).sum().item()

    assert product(1300, 1000) == pytest.approx(product(300, 0))
    peaks = [max(abs(product(start + d, 0)) for d in range(200)) for start in (0, 2000, 8000)]
    assert peaks[0] > 1.5 * peaks[1] > 2 * peaks[2]


def test_one_forward_shares_one_table_for_queries_and_one_for_keys():
    xpos, layout, x = XPos(1, 4), Layout.full(1, 3).fresh(), torch.randn(1, 3, 1, 4)
    for role in ("query", "key") * 2:
        xpos.rotate(x, layout, role)
    assert len(layout.scratch.kept) == 2


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(XPos, 1, 5), r"head_dim must be even for pairs that turn, but got 5\."),
        (partial(XPos, 1, 4, base=0.5), r"base must be above 1, but got 0\.5\."),
        (partial(XPos, 1, 4, scale_base=0.0), r"scale_base must be positive, but got 0\.0\."),
        (
            lambda: XPos(1, 4).admit(Mask(False)),
            r"mask must be causal for XPos, in whose products keys ahead grow as those behind fade, but got Mask\. "
            r"rope works both ways\.",
        ),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()
