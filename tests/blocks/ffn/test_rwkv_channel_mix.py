"""RWKV's channel mix against its formula, over padding and between documents, and step by step."""

import torch
from torch.testing import assert_close

from blocks.contracts import PAD, Layout
from blocks.ffn.rwkv_channel_mix import RwkvChannelMix

D = 6


def _ffn():
    ffn = RwkvChannelMix(D, d_ff=5).double()
    torch.nn.init.uniform_(ffn.gate_blend)
    torch.nn.init.uniform_(ffn.hidden_blend)
    return ffn


def _token(ffn, x, before):
    gate = ffn.to_gate(ffn.gate_blend * x + (1 - ffn.gate_blend) * before).sigmoid()
    hidden = ffn.to_hidden(ffn.hidden_blend * x + (1 - ffn.hidden_blend) * before)
    return gate * ffn.to_out(torch.stack([max(h, h * 0) ** 2 for h in hidden]))


def test_matches_the_formula():
    ffn, x = _ffn(), torch.randn(2, 4, D, dtype=torch.float64)
    y, _ = ffn(x, Layout.full(2, 4))
    for b in range(2):
        for t in range(4):
            before = x[b, t - 1] if t else torch.zeros(D, dtype=torch.float64)
            assert_close(y[b, t], _token(ffn, x[b, t], before))


def test_looks_past_padding_but_not_into_another_document():
    ffn, x = _ffn(), torch.randn(1, 6, D, dtype=torch.float64)
    document = torch.tensor([[0, PAD, 0, 1, PAD, 1]])
    position = torch.tensor([[0, PAD, 1, 0, PAD, 1]])
    y, _ = ffn(x, Layout(position, document))
    zero = torch.zeros(D, dtype=torch.float64)
    for t, before in ((0, zero), (2, x[0, 0]), (3, zero), (5, x[0, 3])):
        assert_close(y[0, t], _token(ffn, x[0, t], before))


def test_the_state_is_the_last_real_token():
    ffn, x = _ffn(), torch.randn(2, 4, D, dtype=torch.float64)
    layout = Layout.padded(torch.tensor([4, 2]), 4)
    _, state = ffn(x, layout, ffn.empty_state(2))
    assert torch.equal(state.x[:, 0], torch.stack([x[0, 3], x[1, 1]]))
    blank = torch.full((2, 1), PAD)
    _, held = ffn(x[:, :1], Layout(blank, blank), state)
    assert torch.equal(held.x, state.x)
