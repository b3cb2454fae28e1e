"""The parallel layer: all sublayers read one stream, and their sum is written once."""

from functools import partial

import torch
from torch.testing import assert_close

from blocks.contracts import Layout, Memory
from blocks.ffn.none import no_ffn
from blocks.layer.parallel import Parallel
from blocks.norm.layer import LayerNorm
from blocks.residual.post_norm import PostNorm

D = 16
LAYOUT = Layout.full(2, 5)


def test_adds_what_all_say_of_the_same_stream(parts, reading, cross, x):
    layer = Parallel(D, reading, cross_attention=cross, **parts).double()
    memory = Memory(torch.randn(2, 3, D, dtype=torch.float64), Layout.full(2, 3))
    seen = layer.residual.norm(x)
    expected = x + layer.mixer(seen, LAYOUT)[0] + layer.ffn(seen, LAYOUT)[0]
    expected = expected + layer.cross_attention(seen, LAYOUT, None, memory)[0]
    assert_close(layer(x, LAYOUT, None, memory)[0], expected)


def test_has_one_residual_for_all(parts, site, x):
    layer = Parallel(D, site, **{**parts, "residual": partial(PostNorm, norm=LayerNorm)}).double()
    both = layer.mixer(x, LAYOUT)[0] + layer.ffn(x, LAYOUT)[0]
    assert_close(layer(x, LAYOUT)[0], layer.residual.norm(x + both))
    assert len({id(residual) for residual, _ in layer.sublayers()}) == 1
    assert not layer.final_norm


def test_mixes_only_where_there_is_no_feed_forward(parts, site, x):
    layer = Parallel(D, site, **{**parts, "ffn": no_ffn}).double()
    assert_close(layer(x, LAYOUT)[0], x + layer.mixer(layer.residual.norm(x), LAYOUT)[0])


def test_steps_give_what_the_whole_gives(parts, site, x):
    layer = Parallel(D, site, **parts).double()
    state, steps = layer.empty_state(2, 5), []
    for t in range(5):
        y, state = layer(x[:, t : t + 1], LAYOUT.slice(t, t + 1), state)
        steps.append(y)
    assert_close(torch.cat(steps, dim=1), layer(x, LAYOUT)[0])


def test_takes_as_many_steps_as_its_longest_part(parts, site):
    layer = Parallel(D, site, **parts)
    slowest = max(layer.mixer.cost(9).steps, layer.ffn.cost(9).steps)
    assert layer.cost(9).steps == slowest + layer.residual.cost(9).steps
