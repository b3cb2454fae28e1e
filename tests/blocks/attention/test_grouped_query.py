"""Grouped-query attention against its definition, its choices, its refusals, and what it says of itself."""

import functools
import math

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.contracts import PAD, AttentionPosition, Layout, Memory
from blocks.functional import see
from blocks.mask.causal import Causal
from blocks.mask.full import Full
from blocks.mask.strided import Strided
from blocks.mask.window import Window
from blocks.normaliser.sigmoid import Sigmoid
from blocks.score.cosine import CosineScore
from blocks.score.dot import DotScore

B, T, D, H, K = 2, 7, 24, 6, 4

MASKS = [Full(False), Causal(True), Window(True, size=3), Strided(False, stride=3)]


class Distance(AttentionPosition):
    """A bias that a child can check: minus the distance, times the head's number."""

    def __init__(self, n_heads, head_dim, /):
        super().__init__(n_heads, head_dim)
        self.n_heads = n_heads

    def bias(self, q, k, q_layout, k_layout):
        away = (q_layout.position[:, :, None] - k_layout.position[:, None, :]).abs()
        return -away[:, None] * torch.arange(self.n_heads, dtype=q.dtype)[:, None, None]


class Remark(AttentionPosition):
    """Adds to what is read the weights' sum over keys ahead."""

    def value_bias(self, p, q_layout, k_layout):
        ahead = (k_layout.position[:, None, :] > q_layout.position[:, :, None])[:, None]
        return (p * ahead).sum(-1, keepdim=True).transpose(1, 2).expand(-1, -1, -1, K)


def build(mask, position=None, /, **choices):
    return GroupedQueryAttention(D, mask, position, **{"n_heads": H, **choices}).double().eval()


def draw(length=T):
    return torch.randn(B, length, D, dtype=torch.float64)


def by_hand(mixer, mask, x, weigh):
    """A loop over rows, tokens and heads; ``weigh(scores, h, t, seen)`` -> weights."""
    width = mixer.head_dim
    q, k, v = (f(x).unflatten(-1, (-1, width)) for f in (mixer.to_q, mixer.to_k, mixer.to_v))
    layout = Layout.full(B, x.shape[1])
    allowed = mask(layout, layout)
    out = torch.zeros(B, x.shape[1], H, width, dtype=x.dtype)
    for b in range(B):
        for t in range(x.shape[1]):
            seen = allowed[b, t].nonzero().flatten()
            for h in range(H):
                g = h * mixer.n_kv_heads // H  # consecutive query heads share a key head
                out[b, t, h] = weigh(k[b, seen, g] @ q[b, t, h], h, t, seen) @ v[b, seen, g]
    return out


@pytest.mark.parametrize("n_kv_heads", [1, 2, 6], ids=["mqa", "gqa", "mha"])
@pytest.mark.parametrize("mask", MASKS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("backend", ["auto", "eager", "sdpa"])
def test_matches_a_loop_over_heads_and_tokens(mask, n_kv_heads, backend):
    mixer, x = build(mask, n_kv_heads=n_kv_heads, backend=backend), draw()
    read = by_hand(mixer, mask, x, lambda s, h, t, seen: (s / 2).softmax(0))
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(read.flatten(2)))


@pytest.mark.parametrize("head_dim", [3, 10])
def test_heads_may_be_narrower_or_wider_than_their_share(head_dim):
    mixer, x = build(Causal(True), n_kv_heads=2, head_dim=head_dim), draw()
    read = by_hand(mixer, Causal(True), x, lambda s, h, t, seen: (s / head_dim**0.5).softmax(0))
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(read.flatten(2)))


@pytest.mark.parametrize("mask", MASKS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_bias_is_added_to_the_scores(mask, backend):
    mixer, x = build(mask, Distance, backend=backend), draw()
    read = by_hand(mixer, mask, x, lambda s, h, t, seen: (s / 2 - h * (t - seen).abs()).softmax(0))
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(read.flatten(2)))


def test_a_value_bias_is_added_to_what_is_read():
    mixer, plain, x = build(Full(False), Remark), build(Full(False)), draw()
    plain.load_state_dict(mixer.state_dict())
    layout = Layout.full(B, T)
    weights = plain.reading.weights(
        *(f(x).unflatten(-1, (H, K)) for f in (plain.to_q, plain.to_k)), see(plain.mask, layout)
    )
    more = torch.stack([weights[:, :, t, t + 1 :].sum(-1) for t in range(T)], dim=1)  # (B, T, H)
    expected = plain(x, layout)[0] + plain.to_out(more[..., None].expand(-1, -1, -1, K).flatten(2))
    assert_close(mixer(x, layout)[0], expected)


@pytest.mark.parametrize("n_kv_heads", [2, 6])
def test_scores_can_be_capped(n_kv_heads):
    score = functools.partial(DotScore, scale=3.0, cap=2.0)
    mixer, x = build(Causal(True), n_kv_heads=n_kv_heads, score=score), draw()
    read = by_hand(mixer, Causal(True), x, lambda s, h, t, seen: (2 * torch.tanh(3 * s / 2)).softmax(0))
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(read.flatten(2)))


def test_a_bias_is_added_after_the_cap():
    mixer, x = build(Causal(True), Distance, score=functools.partial(DotScore, cap=2.0)), draw()
    read = by_hand(
        mixer, Causal(True), x, lambda s, h, t, seen: (2 * torch.tanh(s / 4) - h * (t - seen).abs()).softmax(0)
    )
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(read.flatten(2)))


def test_other_normalisers_take_the_scores():
    mixer, x = build(Causal(True), normaliser=Sigmoid), draw()
    read = by_hand(mixer, Causal(True), x, lambda s, h, t, seen: (s / 2 - math.log(len(seen))).sigmoid())
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(read.flatten(2)))


def test_cosine_scores_forget_the_length_of_keys():
    mixer, x = build(Causal(True), score=CosineScore), draw()
    before = mixer(x, Layout.full(B, T))[0]
    with torch.no_grad():
        mixer.to_k.weight *= 5
        mixer.to_q.weight *= 0.2
    assert_close(mixer(x, Layout.full(B, T))[0], before)


@pytest.mark.parametrize("gate", ["head", "channel"])
def test_a_gate_scales_what_was_read(gate):
    mixer, x = build(Causal(True), gate=gate), draw()
    read = by_hand(mixer, Causal(True), x, lambda s, h, t, seen: (s / 2).softmax(0))
    opened = mixer.to_gate(x).sigmoid().unflatten(-1, (H, -1))
    assert opened.shape[-1] == (1 if gate == "head" else K)
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out((read * opened).flatten(2)))


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_dropout_acts_in_training_only(backend):
    mixer, row = build(Causal(True), dropout=0.5, backend=backend), draw(10)[:1]
    x, layout = row.expand(2000, -1, -1), Layout.full(2000, 10)
    whole = mixer(row, Layout.full(1, 10))[0]
    assert_close(mixer(x[:2], Layout.full(2, 10))[0], whole.expand(2, -1, -1))
    dropped = mixer.train()(x, layout)[0]
    assert (dropped[0] - dropped[1]).abs().max() > 1e-3
    assert_close(dropped.mean(0), whole[0], atol=0.05, rtol=0.05)


def test_a_memory_is_projected_once_and_read_by_document():
    mixer, x = build(Full(False), n_kv_heads=2), draw()
    memory = Memory(draw(5), Layout.packed(torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, PAD]])))
    layout = Layout.packed(torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0] * T]))
    whole, none = mixer(x, layout, memory=memory)
    assert none is None

    y, state = mixer(x[:, :3], layout.slice(0, 3), mixer.empty_state(B, 0), memory)
    with torch.no_grad():
        mixer.to_k.weight.zero_()  # keys that are made again would be others
    rest, after = mixer(x[:, 3:], layout.slice(3, T), state, memory)
    assert_close(torch.cat([y, rest], dim=1), whole)
    assert after is state


def test_mqa_and_gqa_are_mha_with_repeated_keys():
    few, many = build(Causal(True), n_kv_heads=2), build(Causal(True))
    with torch.no_grad():
        for name in ("to_q", "to_out"):
            getattr(many, name).weight.copy_(getattr(few, name).weight)
        for name in ("to_k", "to_v"):
            repeated = getattr(few, name).weight.unflatten(0, (2, K)).repeat_interleave(3, 0).flatten(0, 1)
            getattr(many, name).weight.copy_(repeated)
    x, layout = draw(), Layout.full(B, T)
    assert_close(few(x, layout)[0], many(x, layout)[0])


@pytest.mark.parametrize("bias", [True, False])
def test_all_projections_add_a_bias_or_none_does(bias):
    mixer = build(Causal(True), bias=bias, gate="head")
    added = [name for name, p in mixer.named_parameters() if name.endswith(".bias")]
    assert added == ([f"to_{name}.bias" for name in ("q", "k", "v", "gate", "out")] if bias else [])


def test_under_autocast_it_computes_and_remembers_in_bfloat16():
    mixer = build(Causal(True), n_kv_heads=2).float()
    x = draw().float()
    exact = mixer(x, Layout.full(B, T))[0]
    with torch.autocast("cpu", torch.bfloat16):
        state = mixer.empty_state(B, T)
        y = mixer(x, Layout.full(B, T))[0]
        steps = []
        for t in range(T):
            one, state = mixer(x[:, t : t + 1], Layout.full(B, T).slice(t, t + 1), state)
            steps.append(one)
    assert state.kept[0].dtype == torch.bfloat16
    assert_close(y.float(), exact, atol=0.02, rtol=0.05)
    assert_close(torch.cat(steps, 1).float(), exact, atol=0.02, rtol=0.05)


def test_a_kernel_is_picked_and_named():
    assert build(Causal(True)).lowering() == "native: is_causal (sdpa)"
    assert build(Causal(True), backend="eager").lowering() == "dense fallback (eager)"
    assert build(Causal(True), Distance).lowering() == "dense fallback (sdpa)"
    assert build(Causal(True), normaliser=Sigmoid).lowering() == "dense fallback (eager)"
    assert build(Window(True, size=3), Remark).lowering() == "native: band (eager)"


def test_a_window_keeps_no_more_than_it_sees():
    assert build(Window(True, size=3)).cost(1000).state_bytes == build(Window(True, size=3)).cost(10).state_bytes
    assert build(Causal(True)).cost(1000).state_bytes > 90 * build(Causal(True)).cost(10).state_bytes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(Full(False), n_kv_heads=4), "n_heads must be a multiple of n_kv_heads, but got 6 and 4."),
        (lambda: build(Full(False), n_kv_heads=0), "n_heads must be a multiple of n_kv_heads, but got 6 and 0."),
        (lambda: build(Full(False), n_heads=5), "d_model must be a multiple of n_heads, but got 24 and 5."),
        (lambda: build(Full(False), dropout=1.0), "dropout must be at least 0 and less than 1, but got 1.0."),
        (
            lambda: build(Full(False), normaliser=Sigmoid, backend="sdpa"),
            "backend must be auto or eager for the normaliser Sigmoid, whose weights no fused kernel makes, "
            "but got 'sdpa'.",
        ),
        (
            lambda: build(Full(False), score=functools.partial(DotScore, cap=5.0), backend="sdpa"),
            "backend must be auto or eager for a score with a cap, which no fused kernel applies, but got 'sdpa'.",
        ),
        (
            lambda: build(Full(False), Remark, backend="sdpa"),
            "backend must be auto or eager for Remark, which adds to the values by weight, but got 'sdpa'.",
        ),
        (
            lambda: build(Full(False)).empty_state(1, 5),
            "mask must be causal for a mixer to go on from a past, but got Full, whose tokens look ahead.",
        ),
    ],
)
def test_it_refuses(make, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        make()
    assert str(refusal.value) == message


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has FlexAttention")
def test_flex_is_refused_without_a_gpu():
    with pytest.raises(ValueError, match=r"^backend must be auto, eager or sdpa on this machine, since FlexAttention"):
        build(Full(False), backend="flex")
