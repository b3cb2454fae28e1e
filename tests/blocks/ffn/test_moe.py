"""A mixture of experts against a loop over tokens; its losses against theirs; nothing dropped, nothing leaked."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import Layout
from blocks.ffn.gated import Gated
from blocks.ffn.mlp import Mlp
from blocks.ffn.moe import MixtureOfExperts
from blocks.ffn.rwkv_channel_mix import RwkvChannelMix

B, T, D = 2, 5, 8


def _moe(**choices):
    return MixtureOfExperts(D, expert=partial(Mlp, d_ff=6), **{"n_experts": 4, **choices}).double()


def _x():
    return torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("balance", ["loss", "bias"])
def test_matches_a_loop_over_tokens(top_k, shared, balance):
    moe, x, layout = _moe(top_k=top_k, shared=shared, balance=balance), _x(), Layout.full(B, T)
    if balance == "bias":
        torch.nn.init.normal_(moe.handicap)
    y, _ = moe(x, layout)
    one = Layout.full(1, 1)
    for b in range(B):
        for t in range(T):
            token = x[b : b + 1, t : t + 1]
            scores = moe.to_scores(token)[0, 0].softmax(0)
            ranked = scores if balance == "loss" else scores + moe.handicap
            best = sorted(range(4), key=lambda e: -ranked[e].item())[:top_k]
            weight = {e: scores[e] for e in best}
            if top_k > 1:
                weight = {e: w / sum(weight.values()) for e, w in weight.items()}
            expected = sum(w * moe.experts[e](token, one)[0] for e, w in weight.items())
            expected = expected + sum(expert(token, one)[0] for expert in moe.shared)
            assert_close(y[b, t], expected[0, 0])


def test_the_balance_loss_is_one_where_the_load_is_even_and_counts_no_padding():
    moe, x = _moe(top_k=2, balance_weight=0.5), _x()
    layout = Layout.padded(torch.tensor([5, 3]), T).fresh()
    moe(x, layout)
    real = x[layout.real]
    scores = moe.to_scores(real).softmax(-1)
    picked = torch.zeros(4, dtype=torch.float64)
    for token in scores:
        for e in token.topk(2).indices:
            picked[e] += 1 / (2 * len(real))
    assert_close(layout.scratch.losses["balance"], [0.5 * 4 * (picked * scores.mean(0)).sum()])

    moe.to_scores.weight.data.zero_()
    even = Layout.full(B, T).fresh()
    moe(x, even)
    assert_close(even.scratch.losses["balance"], [torch.tensor(0.5, dtype=torch.float64)])


def test_the_bias_is_lowered_where_an_expert_has_more_than_its_share_and_nothing_else_moves():
    moe, layout = _moe(top_k=1, balance="bias", balance_weight=1.0), Layout.full(B, T).fresh()
    moe.handicap.data = torch.tensor([9.0, 0.0, 0.0, 0.0], dtype=torch.float64)  # all go to the first
    moe(_x(), layout)
    layout.scratch.losses["balance"][0].backward()
    assert_close(moe.handicap.grad, torch.tensor([0.75, -0.25, -0.25, -0.25], dtype=torch.float64))
    assert moe.to_scores.weight.grad is None


def test_no_balance_reports_nothing():
    layout = Layout.full(B, T).fresh()
    _moe(balance="none")(_x(), layout)
    assert layout.scratch.losses == {}


def test_no_token_is_dropped_where_all_pick_the_same_expert():
    moe, x = _moe(top_k=1), _x().abs()
    moe.to_scores.weight.data = torch.tensor([[1.0], [0.0], [0.0], [0.0]], dtype=torch.float64).expand(4, D).clone()
    y, _ = moe(x, Layout.full(B, T))
    scores = moe.to_scores(x).softmax(-1)[..., :1]
    assert_close(y, scores * moe.experts[0](x, Layout.full(B, T))[0])


def test_padding_is_sent_to_nobody():
    moe, seen = _moe(top_k=1), []
    for expert in moe.experts:
        expert.register_forward_hook(lambda module, args, out: seen.append(args[0].abs().sum(-1).count_nonzero()))
    y, _ = moe(_x(), Layout.padded(torch.tensor([5, 2]), T))
    assert sum(seen) == 7
    assert not y[1, 2:].any()


def test_other_tokens_do_not_change_the_last_bit_of_one():
    """Though a product of five rows rounds unlike one of eight: that is what rows are filled up for."""
    moe = MixtureOfExperts(64, expert=Gated, n_experts=4).double()
    x, layout = torch.randn(3, 13, 64, dtype=torch.float64), Layout.full(3, 13)
    y, _ = moe(x, layout)
    for _ in range(5):
        other = torch.randn_like(x)
        other[2, 9:] = x[2, 9:]
        assert torch.equal(moe(other, layout)[0][2, 9:], y[2, 9:])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"top_k": 5}, r"top_k must be between 1 and n_experts, but got 5 of 4\."),
        ({"top_k": 0}, r"top_k must be between 1 and n_experts, but got 0 of 4\."),
        ({"balance": "auto"}, r"balance must be loss, bias or none, but got 'auto'\."),
        (
            {"expert": RwkvChannelMix},
            r"expert must be a feed-forward that takes each token alone, but got RwkvChannelMix\.",
        ),
    ],
)
def test_refuses(choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MixtureOfExperts(D, **{"expert": Mlp, "n_experts": 4, **choices})
