"""Talking heads against their definition, and multi-head attention where they are silent."""

import torch
from torch.testing import assert_close

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.attention.talking_heads import TalkingHeadsAttention
from blocks.contracts import Layout
from blocks.mask.causal import Causal

B, T, D, H, K = 2, 6, 12, 3, 4


def test_matches_a_loop_over_heads_and_tokens():
    mixer = TalkingHeadsAttention(D, Causal(True), None, n_heads=H).double()
    with torch.no_grad():
        mixer.mix_scores.normal_()
        mixer.mix_weights.normal_()
    x = torch.randn(B, T, D, dtype=torch.float64)
    q, k, v = (f(x).view(B, T, H, K) for f in (mixer.to_q, mixer.to_k, mixer.to_v))
    out = torch.zeros(B, T, H, K, dtype=x.dtype)
    for b in range(B):
        for t in range(T):
            scores = torch.stack([k[b, : t + 1, h] @ q[b, t, h] / 2 for h in range(H)])
            talked = torch.stack([sum(mixer.mix_scores[i, h] * scores[i] for i in range(H)) for h in range(H)])
            weights = talked.softmax(-1)
            for h in range(H):
                mixed = sum(mixer.mix_weights[i, h] * weights[i] for i in range(H))
                out[b, t, h] = mixed @ v[b, : t + 1, h]
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(out.flatten(2)))


def test_silent_heads_are_multi_head_attention():
    talking, plain = (kind(D, Causal(True), None, n_heads=H) for kind in (TalkingHeadsAttention, GroupedQueryAttention))
    plain.load_state_dict({n: p for n, p in talking.state_dict().items() if not n.startswith("mix")})
    with torch.no_grad():
        talking.mix_scores.copy_(torch.eye(H))
        talking.mix_weights.copy_(torch.eye(H))
    x = torch.randn(B, T, D)
    assert_close(talking(x, Layout.full(B, T))[0], plain(x, Layout.full(B, T))[0])


def test_all_projections_add_a_bias_or_none_does():
    for bias in (True, False):
        mixer = TalkingHeadsAttention(D, Causal(True), None, n_heads=H, bias=bias)
        assert [to.bias is not None for to in (mixer.to_q, mixer.to_k, mixer.to_v, mixer.to_out)] == [bias] * 4


def test_it_starts_near_multi_head_attention():
    mixer = TalkingHeadsAttention(D, Causal(True), None, n_heads=H)
    for mix in (mixer.mix_scores, mixer.mix_weights):
        assert 0 < (mix - torch.eye(H)).abs().max() < 0.2


def test_it_always_reads_eagerly():
    assert TalkingHeadsAttention(D, Causal(True), None, n_heads=H).lowering() == "dense fallback (eager)"
