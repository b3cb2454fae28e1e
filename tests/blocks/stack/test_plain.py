"""Stacks: layers one after another, positions at the foot, the norm at the top, streams, losses, recomputation."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.contracts import EmbeddingPosition, Layout, Memory, Site
from blocks.ffn.mlp import Mlp
from blocks.ffn.moe import MixtureOfExperts
from blocks.layer.sequential import Sequential
from blocks.mask.causal import Causal
from blocks.norm.layer import LayerNorm
from blocks.position.sinusoidal import Sinusoidal
from blocks.position.t5 import T5
from blocks.residual.deep_norm import DeepNorm
from blocks.residual.hyper_connections import HyperConnections
from blocks.residual.post_norm import PostNorm
from blocks.residual.pre_norm import PreNorm
from blocks.stack.plain import Layers
from registry import ConfigError, factory

D = 16
LAYOUT = Layout.full(2, 5)
LAYER = partial(
    Sequential,
    mixer=partial(GroupedQueryAttention, n_heads=2),
    mask=Causal,
    ffn=partial(Mlp, d_ff=24),
    residual=partial(PreNorm, norm=LayerNorm),
)


def _site(**facts):
    return Site(causal=True, max_length=32, **facts)


def _stack(*layers, **choices):
    return Layers(D, _site(), layers=list(layers), norm=LayerNorm, **choices).double()


def _x():
    return torch.randn(2, 5, D, dtype=torch.float64)


def test_is_its_layers_one_after_another_and_a_last_norm():
    stack, x = _stack(LAYER, LAYER), _x()
    y = stack.layers[1](stack.layers[0](x, LAYOUT)[0], LAYOUT)[0]
    assert_close(stack(x, LAYOUT)[0], stack.norm(y))


def test_the_last_layer_says_whether_a_norm_is_due():
    post = partial(LAYER, residual=partial(PostNorm, norm=LayerNorm))
    assert isinstance(_stack(post, LAYER).norm, LayerNorm)
    assert isinstance(_stack(LAYER, post).norm, nn.Identity)


def test_positions_are_added_at_the_foot():
    plain, placed = _stack(LAYER), _stack(LAYER, position=[Sinusoidal, Sinusoidal])
    placed.load_state_dict(plain.state_dict(), strict=False)
    x, position = _x(), Sinusoidal(D, 32)
    expected = plain(position.embed(position.embed(x, LAYOUT), LAYOUT), LAYOUT)[0]
    assert_close(placed(x, LAYOUT)[0], expected)


def test_the_foot_drops_features_only_while_training():
    stack, x = _stack(LAYER, dropout=0.5), _x()
    assert not torch.equal(stack(x, LAYOUT)[0], stack(x, LAYOUT)[0])
    stack.eval()
    assert torch.equal(stack(x, LAYOUT)[0], stack(x, LAYOUT)[0])


def test_a_looped_stack_runs_the_same_layers_again_with_a_state_for_each_pass():
    stack, x = _stack(LAYER, LAYER, passes=3), _x()
    y = x
    for _ in range(3):
        for layer in stack.layers:
            y, _ = layer(y, LAYOUT)
    assert_close(stack(x, LAYOUT)[0], stack.norm(y))

    state, steps = stack.empty_state(2, 5), []
    assert len(state.layers) == 6
    for t in range(5):
        out, state = stack(x[:, t : t + 1], LAYOUT.slice(t, t + 1), state)
        steps.append(out)
    assert_close(torch.cat(steps, dim=1), stack.norm(y))


def test_a_looped_stack_costs_each_pass_but_has_its_parameters_once():
    once, thrice = _stack(LAYER, LAYER).cost(7), _stack(LAYER, LAYER, passes=3).cost(7)
    assert thrice == once._replace(flops=3 * once.flops, state_bytes=3 * once.state_bytes, steps=3 * once.steps)


def test_layers_know_where_they_stand_and_how_deep_the_whole_is():
    sites = []

    def spy(d_model, site):
        sites.append(site)
        return LAYER(d_model, site)

    _stack(spy, spy, passes=2)
    assert [(site.depth, site.n_layers) for site in sites] == [(0, 4), (1, 4)]
    assert sites[0].shared is sites[1].shared


def test_streams_are_widened_at_the_foot_and_summed_at_the_top():
    hyper = partial(LAYER, residual=partial(HyperConnections, norm=LayerNorm, streams=3))
    stack, x = _stack(hyper, hyper), _x()
    y = torch.stack([x, x, x], dim=2)
    for layer in stack.layers:
        y, _ = layer(y, LAYOUT)
    assert_close(stack(x, LAYOUT)[0], stack.norm(y[:, :, 0] + y[:, :, 1] + y[:, :, 2]))


@pytest.mark.parametrize("residual", [PreNorm, HyperConnections, DeepNorm])
def test_recomputing_changes_no_gradient_and_no_loss(residual):
    """Not even where layers share a learned bias, drop features and report losses."""
    layer = partial(
        LAYER,
        position=T5,
        ffn=partial(MixtureOfExperts, expert=partial(Mlp, d_ff=8), n_experts=3),
        residual=partial(residual, norm=LayerNorm, dropout=0.3),
    )
    results = []
    x = _x()
    for checkpoint in (False, True):
        torch.manual_seed(1)
        stack, layout = _stack(layer, layer, passes=2, checkpoint=checkpoint), LAYOUT.fresh()
        torch.manual_seed(2)
        y, _ = stack(x.clone().requires_grad_(), layout)
        losses = layout.scratch.losses["balance"]
        assert len(losses) == 4
        (y.square().sum() + sum(losses)).backward()
        results.append([y, *losses, *(p.grad for p in stack.parameters())])
    for plain, again in zip(*results, strict=True):
        assert_close(again, plain)


def test_recomputing_keeps_fewer_activations():
    kept = []
    for checkpoint in (False, True):
        stack, count = _stack(LAYER, LAYER, checkpoint=checkpoint), [0]

        def pack(t, count=count):
            count[0] += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            stack(_x().requires_grad_(), LAYOUT)
        kept.append(count[0])
    assert kept[1] < kept[0] / 4


def test_what_layers_share_lives_for_one_forward():
    stack, x, seen = _stack(LAYER, LAYER), _x(), []
    for layer in stack.layers:
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[1].scratch))
    stack(x, LAYOUT)
    stack(x, LAYOUT)
    assert [s is seen[0] for s in seen] == [True, True, False, False]
    assert seen[2] is seen[3]
    mine = LAYOUT.fresh()
    stack(x, mine)
    assert seen[4] is mine.scratch


def test_passes_the_memory_to_every_layer():
    layer = partial(LAYER, cross_attention=partial(GroupedQueryAttention, n_heads=2))
    memory = Memory(_x(), LAYOUT)
    for checkpoint in (False, True):
        stack = Layers(
            D, _site(reads_memory=True), layers=[layer, layer], norm=LayerNorm, checkpoint=checkpoint
        ).double()
        x = _x().requires_grad_()
        y = stack.layers[0](x, LAYOUT, None, memory)[0]
        expected = stack.norm(stack.layers[1](y, LAYOUT, None, memory)[0])
        assert_close(stack(x, LAYOUT, None, memory)[0], expected)


class Lost(EmbeddingPosition):
    """A position that can not be built."""

    def __init__(self, d_model, max_length, /):
        raise ValueError(f"max_length must be less than 9, but got {max_length}.")

    def embed(self, x, layout):
        return x


@pytest.mark.parametrize(
    ("layers", "choices", "message"),
    [
        ([], {}, r"layers must be at least one, but got none\."),
        ([LAYER], {"passes": 0}, r"passes must be at least 1, but got 0\."),
        ([LAYER], {"position": [Lost, Lost]}, r"max_length must be less than 9, but got 32\."),
        (
            [LAYER, partial(LAYER, residual=partial(HyperConnections, norm=LayerNorm, streams=3))],
            {},
            r"layers of one stack must agree on residual streams, but got \[1, 3\]\.",
        ),
    ],
)
def test_refuses(layers, choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        _stack(*layers, **choices)


def test_refuses_all_layers_at_once_and_the_same_reason_once():
    layer = {"name": "layer/sequential", "mask": "mask/causal", "ffn": "ffn/mlp", "residual": "residual/pre_norm"}
    layers = [
        {**layer, "mixer": {"name": "attention/mha", "n_heads": 3}},
        {**layer, "mixer": {"name": "attention/mha", "n_heads": 5}},
        {**layer, "mixer": {"name": "attention/mha", "n_heads": 5}},
    ]
    origins = {f"layers.{i}.mixer": "attention" for i in range(3)}
    with pytest.raises(ConfigError) as refusal:
        factory({"name": "stack/plain", "layers": layers}, origins=origins)(D, _site())
    assert str(refusal.value).splitlines() == [
        "attention: d_model must be a multiple of n_heads, but got 16 and 3.",
        "attention: d_model must be a multiple of n_heads, but got 16 and 5.",
    ]
