"""Latent attention against its definition, unpacked and absorbed, and its small state."""

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.latent import LatentAttention
from blocks.contracts import AttentionPosition, Layout
from blocks.functional import products
from blocks.mask.causal import Causal
from blocks.mask.full import Full

B, T, D, H, K, R, C = 2, 7, 24, 3, 8, 4, 10


class Turn(AttentionPosition):
    """Turns the first two channels by the position, in radians."""

    def rotate(self, x, layout, role):
        angle = layout.position[:, :, None].to(x.dtype)
        cos, sin = angle.cos(), angle.sin()
        a, b = x[..., 0], x[..., 1]
        return torch.cat([torch.stack([a * cos - b * sin, b * cos + a * sin], -1), x[..., 2:]], -1)


class Looking(Turn):
    """Adds what queries and keys say to each other in the part that it is shown."""

    def bias(self, q, k, q_layout, k_layout):
        return products(q, k)


class Remarking(AttentionPosition):
    def value_bias(self, p, q_layout, k_layout):
        return None


def build(mask=None, position=Turn, **choices):
    sizes = {"n_heads": H, "head_dim": K, "rope_dim": R, "kv_rank": C, **choices}
    return LatentAttention(D, mask or Causal(True), position, **sizes).double().eval()


def by_definition(mixer, x, looked=0.0):
    def rms(t, norm):
        return t / (t.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight

    layout = Layout.full(B, T)
    latent = rms(x @ mixer.to_latent.weight.T, mixer.norm)
    source = x if mixer.to_q_latent is None else rms(x @ mixer.to_q_latent.weight.T, mixer.norm_q)
    q = (source @ mixer.to_q.weight.T).view(B, T, H, R + K)
    turned_q = mixer.reading.position.rotate(q[..., :R], layout, "query")
    turned_k = mixer.reading.position.rotate((x @ mixer.to_k_slice.weight.T)[:, :, None], layout, "key")[:, :, 0]
    k = (latent @ mixer.to_k.weight.T).view(B, T, H, K)
    v = (latent @ mixer.to_v.weight.T).view(B, T, H, K)
    out = torch.zeros(B, T, H, K, dtype=x.dtype)
    for b in range(B):
        for t in range(T):
            for h in range(H):
                content = k[b, : t + 1, h] @ q[b, t, h, R:]
                place = turned_k[b, : t + 1] @ turned_q[b, t, h]  # one slice of key for all heads
                scores = (content + place) / (K + R) ** 0.5 + looked * place
                out[b, t, h] = scores.softmax(0) @ v[b, : t + 1, h]
    return mixer.to_out(out.flatten(2))


@pytest.mark.parametrize("q_rank", [None, 6])
@pytest.mark.parametrize("position", [None, Turn])
def test_matches_a_loop_over_heads_and_tokens(q_rank, position):
    mixer, x = build(position=position, q_rank=q_rank), torch.randn(B, T, D, dtype=torch.float64)
    assert_close(mixer(x, Layout.full(B, T))[0], by_definition(mixer, x))


@torch.no_grad()
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_single_steps_read_the_latents_without_unpacking_them(backend, monkeypatch):
    mixer, x = build(backend=backend), torch.randn(B, T, D, dtype=torch.float64)
    whole, layout = mixer(x, Layout.full(B, T))[0], Layout.full(B, T)
    monkeypatch.setattr(mixer.to_k, "forward", None)
    monkeypatch.setattr(mixer.to_v, "forward", None)
    state, parts = mixer.empty_state(B, T), []
    for t in range(T):
        y, state = mixer(x[:, t : t + 1], layout.slice(t, t + 1), state)
        parts.append(y)
    assert_close(torch.cat(parts, 1), whole)


@torch.no_grad()
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_bias_is_shown_the_slice_and_nothing_else(backend):
    """Or single steps, which look at latents, would not be the whole."""
    mixer, x = build(position=Looking, backend=backend), torch.randn(B, T, D, dtype=torch.float64)
    expected, layout, state = by_definition(mixer, x, looked=1.0), Layout.full(B, T), mixer.empty_state(B, T)
    assert_close(mixer(x, layout)[0], expected)
    for t in range(T):
        y, state = mixer(x[:, t : t + 1], layout.slice(t, t + 1), state)
        assert_close(y, expected[:, t : t + 1])


def test_only_the_latent_and_the_slice_are_remembered():
    assert [tuple(t.shape[2:]) for t in build().empty_state(B, T).kept] == [(C,), (1, R)]


@pytest.mark.parametrize("d_model", [8, 48, 64, 80, 256])
def test_its_default_slice_can_be_rotated(d_model):
    mixer = LatentAttention(d_model, Causal(True), None)
    assert mixer.rope_dim % 2 == 0
    assert mixer.rope_dim >= 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(head_dim=None, n_heads=5), "d_model must be a multiple of n_heads, but got 24 and 5."),
        (lambda: build(kv_rank=0), "kv_rank must be at least 1, but got 0."),
        (
            lambda: build(Full(False), Remarking),
            "position must not add to the values for LatentAttention, whose values are not as wide as the slice "
            "it acts on, but got Remarking.",
        ),
    ],
)
def test_it_refuses(make, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        make()
    assert str(refusal.value) == message
