"""What every attention hands on to its reading, and what the reading makes of it."""

import functools

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.additive import AdditiveAttention
from blocks.attention.bilinear import BilinearAttention
from blocks.attention.differential import DifferentialAttention
from blocks.attention.dot_product import DotProductAttention
from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.attention.latent import LatentAttention
from blocks.attention.linformer import LinformerAttention
from blocks.attention.nystrom import NystromAttention
from blocks.attention.talking_heads import TalkingHeadsAttention
from blocks.contracts import AttentionPosition, Layout, Memory, Normaliser, Score
from blocks.mask.causal import Causal
from blocks.mask.full import Full
from blocks.mask.window import Window
from blocks.score.cosine import CosineScore

B, T, D, H = 2, 7, 24, 3

SCORED = [
    functools.partial(GroupedQueryAttention, n_heads=H, n_kv_heads=1),
    functools.partial(TalkingHeadsAttention, n_heads=H),
    functools.partial(DifferentialAttention, n_heads=H),
    functools.partial(DotProductAttention, n_heads=H),
    functools.partial(BilinearAttention, n_heads=H),
]
WEIGHED = [*SCORED, functools.partial(LatentAttention, n_heads=H), AdditiveAttention]
SUMMARIES = [
    functools.partial(LinformerAttention, n_heads=H, rank=4, length=T),
    functools.partial(NystromAttention, n_heads=H, landmarks=4),
]
LEARNED = [make for make in WEIGHED if getattr(make, "func", make) is not DotProductAttention]


def named(makes):
    return [pytest.param(make, id=getattr(make, "func", make).__name__) for make in makes]


class First(Normaliser):
    """Every query reads the first key."""

    def forward(self, scores, allowed):
        return torch.zeros_like(scores).index_fill(-1, torch.tensor(0), 1.0)


class Blind(Score):
    """All keys are alike."""

    def prepare(self, x, role, rotate):
        return 0 * rotate(x)


class Telling(Score):
    """Doubles queries and triples keys."""

    def prepare(self, x, role, rotate):
        return rotate(x) * {"query": 2, "key": 3}[role]


class Turning(AttentionPosition):
    """Multiplies queries by 5 and keys by 7."""

    def rotate(self, x, layout, role):
        return x * {"query": 5, "key": 7}[role]


class Stretching(AttentionPosition):
    """Stretches queries by e^position and shrinks keys as much, so that only distances count."""

    def rotate(self, x, layout, role):
        stretch = layout.position.to(x.dtype).exp()[:, :, None, None]
        return x * stretch if role == "query" else x / stretch


class Nowhere(AttentionPosition):
    def admit(self, mask):
        raise ValueError("mask must be another, but got this.")


def build(make, mask, position=None, /, **choices):
    return make(D, mask, position, **choices).double().eval()


def twins(make, mask, **choices):
    """A mixer with these choices and one without, of the same weights."""
    one, other = build(make, mask, **choices), build(make, mask)
    other.load_state_dict(one.state_dict())
    return one, other


def draw(rows=B, length=T):
    return torch.randn(rows, length, D, dtype=torch.float64)


@pytest.mark.parametrize("make", named(WEIGHED))
def test_weights_are_those_of_the_normaliser(make):
    mixer, plain = twins(make, Causal(True), normaliser=First)
    x, layout = draw(), Layout.full(B, T)
    first = plain(x, layout)[0][:, :1]  # the first token has nothing else to read
    assert_close(mixer(x, layout)[0], first.expand(-1, T, -1))


@pytest.mark.parametrize("make", named(SCORED))
def test_scores_are_those_of_the_score(make):
    mixer, plain = twins(make, Full(False), score=Blind)
    x, layout = draw(), Layout.full(B, T)
    y = mixer(x, layout)[0]
    assert_close(y, y[:, :1].expand(-1, T, -1))
    assert (plain(x, layout)[0] - y).abs().max() > 1e-3


@pytest.mark.parametrize("make", named(LEARNED + SUMMARIES))
def test_dropout_acts_in_training_only(make):
    mixer, plain = twins(make, Full(False), dropout=0.5)
    x, layout = draw(1).expand(2, -1, -1), Layout.full(2, T)
    assert_close(mixer(x, layout)[0], plain(x, layout)[0])
    one, other = mixer.train()(x, layout)[0]
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("make", named([m for m in WEIGHED + SUMMARIES if m not in (SCORED[1], AdditiveAttention)]))
def test_the_kernel_is_the_one_that_was_asked_for(make):
    for backend in ("eager", "sdpa"):
        assert build(make, Full(False), backend=backend).lowering().endswith(f"({backend})")


def test_scores_and_positions_tell_queries_from_keys():
    mixer = build(SCORED[0], Full(False), Turning, score=Telling)
    x, layout = draw(), Layout.full(B, T)
    q, k = (torch.randn(B, T, n, D // H, dtype=torch.float64) for n in (H, 1))
    assert_close(mixer.reading.queries(q, layout), 2 * 5 * q)
    assert_close(mixer.reading.keys(k, layout), 3 * 7 * k)
    plain = build(SCORED[0], Full(False))
    plain.load_state_dict(mixer.state_dict())
    plain.reading.score.scale *= 2 * 3 * 5 * 7
    assert_close(mixer(x, layout)[0], plain(x, layout)[0])


def test_a_cosine_keeps_what_a_position_says_by_stretching():
    """Were lengths forgotten after the position has acted, where a document begins would count."""
    mixer, x, layout = build(SCORED[0], Causal(True), Stretching, score=CosineScore), draw(), Layout.full(B, T)
    moved = layout._replace(position=layout.position + 3)
    assert_close(mixer(x, moved)[0], mixer(x, layout)[0])
    still = build(SCORED[0], Causal(True), score=CosineScore)
    still.load_state_dict(mixer.state_dict())
    assert (mixer(x, layout)[0] - still(x, layout)[0]).abs().max() > 1e-3


@torch.no_grad()
def test_layers_that_read_one_memory_under_other_masks_see_other_parts_of_it():
    memory, x, layout = Memory(draw(length=5), Layout.full(B, 5)), draw(), Layout.full(B, T)
    shared = layout.fresh()
    for mask in (Full(False), Window(False, size=2)):
        mixer = build(SCORED[0], mask)
        assert_close(mixer(x, shared, memory=memory)[0], mixer(x, layout, memory=memory)[0])


@pytest.mark.parametrize("make", named(WEIGHED))
def test_a_position_may_refuse_the_mask(make):
    with pytest.raises(ValueError, match=r"^mask must be another, but got this\.$"):
        build(make, Causal(True), Nowhere)
