"""The sequential layer against its sublayers one by one; what fits in which slot; what it shares and remembers."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.contracts import Layout, Mask, Memory, Site
from blocks.ffn.gated import Gated
from blocks.ffn.none import no_ffn
from blocks.layer.sequential import Sequential
from blocks.mask.causal import Causal
from blocks.mask.full import Full
from blocks.mask.window import Window
from blocks.norm.layer import LayerNorm
from blocks.position.alibi import Alibi
from blocks.position.none import NoPosition
from blocks.position.rope import Rope
from blocks.recurrent.lstm import LSTM
from blocks.residual.post_norm import PostNorm
from registry import ConfigError, factory

D = 16
LAYOUT = Layout.full(2, 5)


def test_is_its_sublayers_one_after_another(parts, site, x):
    layer = Sequential(D, site, **parts).double()
    norm = layer.mixer_residual.norm, layer.ffn_residual.norm
    y, state = layer(x, LAYOUT)
    mixed = x + layer.mixer(norm[0](x), LAYOUT)[0]
    assert_close(y, mixed + layer.ffn(norm[1](mixed), LAYOUT)[0])
    assert state is None
    assert layer.final_norm


def test_reads_a_memory_between_mixing_and_thinking(parts, reading, cross, x):
    layer = Sequential(D, reading, cross_attention=cross, **parts).double()
    memory = Memory(torch.randn(2, 3, D, dtype=torch.float64), Layout.full(2, 3))
    y, _ = layer(x, LAYOUT, None, memory)
    mixed = x + layer.mixer(layer.mixer_residual.norm(x), LAYOUT)[0]
    read = mixed + layer.cross_attention(layer.cross_residual.norm(mixed), LAYOUT, None, memory)[0]
    assert_close(y, read + layer.ffn(layer.ffn_residual.norm(read), LAYOUT)[0])


def test_nothing_of_the_memory_is_hidden_and_no_position_turns_it(parts, reading, cross):
    layer = Sequential(D, reading, cross_attention=cross, **parts)
    assert not layer.cross_attention.mask.causal
    rotating = [m for m in layer.cross_attention.modules() if isinstance(m, Rope)]
    assert not rotating
    layer = Sequential(D, reading, cross_attention=cross, cross_position=Rope, **parts)
    assert any(isinstance(m, Rope) for m in layer.cross_attention.modules())


def test_without_a_feed_forward_there_is_no_residual_around_it(parts, site, x):
    layer = Sequential(D, site, **{**parts, "ffn": no_ffn, "residual": partial(PostNorm, norm=LayerNorm)}).double()
    y, _ = layer(x, LAYOUT)
    assert_close(y, layer.mixer_residual.norm(x + layer.mixer(x, LAYOUT)[0]))
    assert [name for name, _ in layer.named_parameters() if "ffn" in name] == []
    assert not layer.final_norm


def test_steps_give_what_the_whole_gives_while_the_memory_is_read_once(parts, reading, cross, x):
    layer = Sequential(D, reading, cross_attention=cross, **parts).double()
    memory = Memory(torch.randn(2, 3, D, dtype=torch.float64), Layout.full(2, 3))
    whole, _ = layer(x, LAYOUT, None, memory)
    state, steps = layer.empty_state(2, 5), []
    for t in range(5):
        y, state = layer(x[:, t : t + 1], LAYOUT.slice(t, t + 1), state, memory)
        memory = Memory(torch.zeros_like(memory.x), memory.layout)  # its keys are in the state by now
        steps.append(y)
    assert_close(torch.cat(steps, dim=1), whole)


def test_masks_and_positions_are_built_once_for_each_spec(parts, site):
    window = partial(Window, size=2)
    specs = [parts, parts, {**parts, "mask": window}, {**parts, "mask": window, "position": partial(Rope, base=10.0)}]
    masks, positions = [], []
    for spec in specs:
        layer = Sequential(D, site, **spec)
        masks.append(layer.mixer.mask)
        positions += [m for m in layer.mixer.modules() if isinstance(m, Rope)]
    assert [mask is masks[0] for mask in masks] == [True, True, False, False]
    assert masks[2] is masks[3]
    assert [position is positions[0] for position in positions] == [True, True, True, False]


def test_a_mixer_without_heads_takes_no_position_or_none(parts, site, x):
    lstm = {**parts, "mixer": LSTM, "position": None}
    assert Sequential(D, site, **lstm).double()(x, LAYOUT)[0].shape == x.shape
    assert Sequential(D, site, **{**lstm, "position": NoPosition}).double()(x, LAYOUT)[0].shape == x.shape


def test_refuses_a_position_where_there_are_no_queries_and_keys(parts, site):
    message = (
        r"^position must be none for LSTM, which has no queries and keys, but got Alibi\. "
        r"Choose one that acts at the foot of the stack, or position=none\.$"
    )
    with pytest.raises(ValueError, match=message):
        Sequential(D, site, **{**parts, "mixer": LSTM, "position": Alibi})


class Blind(Mask):
    """A policy that ignores what it is told."""

    def __init__(self, causal, /):
        super().__init__(False)


def test_refuses_to_see_the_future_in_a_decoder(parts, site):
    with pytest.raises(ValueError, match=r"^mask must hide the future in a decoder, but got Blind\.$"):
        Sequential(D, site, **{**parts, "mask": Blind})


def test_may_see_the_future_in_an_encoder(parts, x):
    layer = Sequential(D, Site(causal=False, max_length=32), **{**parts, "mask": Full}).double()
    other = x.clone()
    other[:, -1] += 1.0
    assert not torch.equal(layer(other, LAYOUT)[0][:, 0], layer(x, LAYOUT)[0][:, 0])


def test_refuses_a_memory_without_a_reader_and_a_reader_without_a_memory(parts, site, reading, cross, x):
    alone = r"^cross_attention must read the encoder's memory, but got none\. Choose one, like mha\.$"
    with pytest.raises(ValueError, match=alone):
        Sequential(D, reading, **parts)
    idle = (
        r"^cross_attention must have a memory to read, but got GroupedQueryAttention in a model without one\. "
        r"Set it to null, or choose model=encoder_decoder\.$"
    )
    with pytest.raises(ValueError, match=idle):
        Sequential(D, site, cross_attention=cross, **parts)
    with pytest.raises(
        ValueError, match=r"^cross_position must have a cross-attention to act in, but got Rope alone\.$"
    ):
        Sequential(D, site, cross_position=Rope, **parts)
    both = r"^a memory and a cross-attention must come together, but got only one\.$"
    with pytest.raises(ValueError, match=both):
        Sequential(D, site, **parts).double()(x, LAYOUT, None, Memory(x, LAYOUT))
    with pytest.raises(ValueError, match=both):
        Sequential(D, reading, cross_attention=cross, **parts).double()(x, LAYOUT)


def test_refuses_to_read_a_memory_with_what_can_not(parts, reading):
    message = r"^cross_attention must be an attention, which can read a memory, but got LSTM\.$"
    with pytest.raises(ValueError, match=message):
        Sequential(D, reading, cross_attention=LSTM, **parts)


def test_refuses_everything_at_once(site):
    spec = {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": 3},
        "mask": "mask/causal",
        "ffn": {"name": "ffn/mlp", "d_ff": -4},
        "residual": {"name": "residual/stochastic_depth", "rate": 2.0},
    }
    with pytest.raises(ConfigError) as refusal:
        factory(spec, path="decoder.layers.1")(D, site)
    lines = str(refusal.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "decoder.layers.1.residual",
        "decoder.layers.1.mixer",
        "decoder.layers.1.ffn",
    ]


def test_tells_its_sublayers(parts, reading, cross):
    layer = Sequential(D, reading, cross_attention=cross, **{**parts, "ffn": Gated})
    assert [type(sublayer) for _, sublayer in layer.sublayers()] == [
        GroupedQueryAttention,
        GroupedQueryAttention,
        Gated,
    ]
    assert len({id(residual) for residual, _ in layer.sublayers()}) == 3


def test_cost_is_the_sum_of_its_parts(parts, site):
    layer, length = Sequential(D, site, **parts), 9
    cost, parts_cost = layer.cost(length), [layer.mixer.cost(length), layer.ffn.cost(length)]
    assert cost.parameters == sum(p.numel() for p in layer.parameters())
    assert cost.flops == sum(c.flops for c in parts_cost)
    assert cost.state_bytes == layer.empty_state(1, length).bytes()


def test_a_causal_layer_is_under_a_causal_mask(parts, site):
    assert isinstance(Sequential(D, site, **parts).mask, Causal)
