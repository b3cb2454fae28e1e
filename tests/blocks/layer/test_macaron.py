"""The macaron layer: half a feed-forward on either side of the mixing."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Memory
from blocks.ffn.none import no_ffn
from blocks.ffn.rwkv_channel_mix import RwkvChannelMix
from blocks.layer.macaron import Macaron

D = 16
LAYOUT = Layout.full(2, 5)


def test_is_its_sublayers_with_two_half_feed_forwards(parts, reading, cross, x):
    layer = Macaron(D, reading, cross_attention=cross, **parts).double()
    memory = Memory(torch.randn(2, 3, D, dtype=torch.float64), Layout.full(2, 3))
    y, _ = layer(x, LAYOUT, None, memory)
    expected = x + layer.first(layer.first_residual.norm(x), LAYOUT)[0] / 2
    expected = expected + layer.mixer(layer.mixer_residual.norm(expected), LAYOUT)[0]
    normed = layer.cross_residual.norm(expected)
    expected = expected + layer.cross_attention(normed, LAYOUT, None, memory)[0]
    expected = expected + layer.ffn(layer.ffn_residual.norm(expected), LAYOUT)[0] / 2
    assert_close(y, expected)


def test_the_two_halves_learn_apart_and_remember_apart(parts, site, x):
    layer = Macaron(D, site, **{**parts, "ffn": RwkvChannelMix}).double()
    assert layer.first is not layer.ffn
    state, steps = layer.empty_state(2, 5), []
    for t in range(5):
        y, state = layer(x[:, t : t + 1], LAYOUT.slice(t, t + 1), state)
        steps.append(y)
    assert_close(torch.cat(steps, dim=1), layer(x, LAYOUT)[0])
    assert not torch.equal(state.first.x, state.ffn.x)


def test_refuses_to_be_without_a_feed_forward(parts, site):
    message = r"^ffn must be a feed-forward in Macaron, but got none\. Choose layer=sequential\.$"
    with pytest.raises(ValueError, match=message):
        Macaron(D, site, **{**parts, "ffn": no_ffn})
