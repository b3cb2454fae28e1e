"""Linformer and Nyström against their formulas, document by document, and what they can not do."""

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.attention.linformer import LinformerAttention
from blocks.attention.nystrom import NystromAttention
from blocks.contracts import PAD, AttentionPosition, Layout, Mask, Memory
from blocks.mask.causal import Causal
from blocks.mask.full import Full
from blocks.mask.window import Window

B, T, D, H, K = 2, 9, 12, 3, 4


class Turning(AttentionPosition):
    def rotate(self, x, layout, role):
        return x


def draw(length=T):
    return torch.randn(B, length, D, dtype=torch.float64)


def heads(to, x):
    return to(x).unflatten(-1, (H, K))


def test_linformer_reads_learned_sums_of_keys_and_values():
    mixer, x = LinformerAttention(D, Full(False), None, n_heads=H, rank=4, length=20).double(), draw()
    q, k, v = (heads(f, x) for f in (mixer.to_q, mixer.to_k, mixer.to_v))
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            few_k = torch.stack([sum(mixer.squeeze[s, r] * k[b, s, h] for s in range(T)) for r in range(4)])
            few_v = torch.stack([sum(mixer.squeeze[s, r] * v[b, s, h] for s in range(T)) for r in range(4)])
            out[b, :, h] = (q[b, :, h] @ few_k.T / 2).softmax(-1) @ few_v
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(out.flatten(2)))


def test_nystrom_multiplies_three_small_softmaxes():
    mixer, x = NystromAttention(D, Full(False), None, n_heads=H, landmarks=3, iterations=20).double(), draw()
    q, k, v = (heads(f, x) for f in (mixer.to_q, mixer.to_k, mixer.to_v))
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            qs, ks, vs = q[b, :, h] / 2, k[b, :, h], v[b, :, h]
            mean_q, mean_k = (torch.stack([t[i : i + 3].mean(0) for i in (0, 3, 6)]) for t in (qs, ks))
            near = (mean_q @ mean_k.T).softmax(-1)
            out[b, :, h] = (qs @ mean_k.T).softmax(-1) @ torch.linalg.pinv(near) @ (mean_q @ ks.T).softmax(-1) @ vs
    assert_close(mixer(x, Layout.full(B, T))[0], mixer.to_out(out.flatten(2)), atol=1e-6, rtol=1e-6)


def test_nystrom_reads_a_document_of_as_many_tokens_as_landmarks_or_fewer_by_plain_softmax():
    """Also beside a longer document in one row, in a memory, and in the gradient."""
    for landmarks in (T, 2 * T + 1):
        mixer = NystromAttention(D, Full(False), None, n_heads=H, landmarks=landmarks).double()
        plain = GroupedQueryAttention(D, Full(False), None, n_heads=H).double()
        plain.load_state_dict(mixer.state_dict())
        x = draw().requires_grad_()
        read, expected = (m(x, Layout.full(B, T))[0] for m in (mixer, plain))
        assert_close(read, expected)
        assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (read, expected)))

        document = torch.tensor([[0] * T + [1] * (2 * T + 2)] * B)
        packed, layout = draw(3 * T + 2), Layout.packed(document)
        assert_close(mixer(packed, layout)[0][:, :T], plain(packed[:, :T], Layout.full(B, T))[0])

        memory = Memory(draw(4), Layout.full(B, 4))
        assert_close(*(m(x, Layout.full(B, T), memory=memory)[0] for m in (mixer, plain)))


@pytest.mark.parametrize(
    "make",
    [
        lambda mask, position=None: LinformerAttention(D, mask, position, n_heads=H, rank=4, length=30),
        lambda mask, position=None: NystromAttention(D, mask, position, n_heads=H, landmarks=4),
    ],
    ids=["linformer", "nystrom"],
)
class TestBoth:
    @torch.no_grad()
    def test_each_document_has_summaries_of_its_own(self, make):
        mixer, x = make(Full(False)).double(), draw(14)
        document = torch.tensor([[PAD, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, PAD, PAD], [0] * 14])
        y = mixer(x, Layout.packed(document))[0]
        for row, where in ((0, slice(1, 4)), (0, slice(4, 11)), (0, slice(11, 12)), (1, slice(0, 14))):
            part = x[row : row + 1, where]
            assert_close(y[row : row + 1, where], mixer(part, Layout.full(1, part.shape[1]))[0])
        assert not y[0, [0, 12, 13]].any()

    @torch.no_grad()
    def test_a_memory_is_summed_up_once(self, make):
        mixer, x = make(Full(False)).double(), draw()
        memory = Memory(draw(7), Layout.padded(torch.tensor([7, 4]), 7))
        whole = mixer(x, Layout.full(B, T), memory=memory)[0]
        first, state = mixer(x[:, :4], Layout.full(B, T).slice(0, 4), mixer.empty_state(B, 0), memory)
        mixer.to_k.weight.zero_()
        rest, after = mixer(x[:, 4:], Layout.full(B, T).slice(4, T), state, memory)
        assert_close(torch.cat([first, rest], 1), whole)
        assert after is state

    def test_its_cost_grows_linearly(self, make):
        mixer = make(Full(False))
        fixed = 2 * mixer.cost(1000).flops - mixer.cost(2000).flops
        assert mixer.cost(16_000).flops - fixed == 16 * (mixer.cost(1000).flops - fixed)

    @pytest.mark.parametrize("mask", [Causal(True), Window(False, size=3), Mask(True)], ids=lambda m: type(m).__name__)
    def test_it_refuses_all_masks_but_full(self, make, mask):
        name = type(mask).__name__
        with pytest.raises(ValueError, match=rf"^mask must be full for .*, but got {name}\. Use it in an encoder or"):
            make(mask)

    def test_it_refuses_positions_inside_attention(self, make):
        with pytest.raises(ValueError, match=r"^position must not turn queries and keys for .*, but got Turning\.$"):
            make(Full(False), Turning)


def test_linformer_reads_rows_as_long_as_it_learned():
    mixer = LinformerAttention(D, Full(False), None, n_heads=H, rank=4, length=T).double()
    y = mixer(draw(), Layout.full(B, T))[0]
    assert y.shape == (B, T, D)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_nystrom_inverts_what_favours_one_landmark(dtype):
    """Its column adds up to much more than one; and the work is not done in half precision."""
    mixer = NystromAttention(D, Full(False), None, n_heads=H, iterations=12)
    one = torch.eye(32, dtype=torch.float64)
    a = (0.3 * torch.randn(2, H, 32, 32, dtype=torch.float64) + 4 * one[0] + 4.5 * one).softmax(-1).to(dtype)
    assert_close(mixer._inverse(a).double(), torch.linalg.inv(a.double()), atol=1e-4, rtol=1e-4)


def test_linformer_refuses_rows_longer_than_it_learned():
    mixer = LinformerAttention(D, Full(False), None, n_heads=H, length=8)
    with pytest.raises(
        ValueError, match=r"^length must be at least the 9 tokens of a row for LinformerAttention, but got 8\.$"
    ):
        mixer(torch.randn(1, 9, D), Layout.full(1, 9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LinformerAttention(D, Full(False), None, n_heads=5),
            "d_model must be a multiple of n_heads, but got 12 and 5.",
        ),
        (
            lambda: LinformerAttention(D, Full(False), None, n_heads=3, rank=0),
            "rank and length must be at least 1, but got 0 and 2048.",
        ),
        (
            lambda: NystromAttention(D, Full(False), None, n_heads=3, landmarks=0),
            "landmarks and iterations must be at least 1, but got 0 and 6.",
        ),
    ],
)
def test_it_refuses(make, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        make()
    assert str(refusal.value) == message
