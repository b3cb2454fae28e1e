"""What queries see, sparse patterns and kernels: against loops, each other, and the cost they declare."""

import functools
import math

import pytest
import torch
from torch.nn.functional import dropout
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from blocks import functional
from blocks.contracts import PAD, AttentionPosition, Layout, Mask
from blocks.functional import (
    View,
    allowed_by,
    attend,
    band,
    bias_flops,
    flexed,
    fused,
    in_strips,
    lowering,
    pairs,
    pattern_of,
    products,
    see,
    weighted,
)
from blocks.mask.bigbird import BigBird
from blocks.mask.chunked import Chunked
from blocks.mask.longformer import Longformer
from blocks.mask.strided import Strided
from blocks.mask.window import Window

B, H, G, K = 2, 4, 2, 8
SCALE = K**-0.5

SPARSE = [
    functools.partial(Window, size=20),
    functools.partial(Chunked, size=24),
    functools.partial(Longformer, size=9, n_global=3),
    functools.partial(BigBird, size=8),
]


def draw(length, dtype=torch.float64, heads=(H, G, G), width=K):
    return [torch.randn(B, length, n, width, dtype=dtype, requires_grad=True) for n in heads]


def plainly(q, k, v, view):
    """The oracle: every pair, in one piece, in plain torch."""
    scores = products(q, k) * SCALE
    allowed = allowed_by(view)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return weighted(scores.softmax(-1), v)


def dense_view(mask, layout):
    allowed = mask(layout, layout)
    nothing = ~allowed.any(-1, keepdim=True)
    return View(layout, layout, allowed=allowed | nothing, blind=nothing[..., None])


def gradients(out, tensors):
    return torch.autograd.grad((out * torch.linspace(0, 1, out.numel(), dtype=out.dtype).view_as(out)).sum(), tensors)


def scattered(length):
    """Documents of several lengths with padding before, between, inside and behind."""
    document = torch.zeros(B, length, dtype=torch.long)
    document[:, length // 3 :] = 1
    document[1, length // 2 :] = 2
    document[:, :5] = PAD
    document[0, length // 2 : length // 2 + 9] = PAD
    document[1, -7:] = PAD
    position = torch.full_like(document, PAD)
    for row in range(B):
        for one in range(3):
            where = document[row] == one
            position[row, where] = torch.arange(int(where.sum()))
    return Layout(position, document)


def test_products_and_weighted_group_consecutive_heads():
    q, k, v = draw(5)
    expected = torch.zeros(B, H, 5, 5, dtype=torch.float64)
    for h in range(H):
        expected[:, h] = q[:, :, h] @ k[:, :, h * G // H].transpose(1, 2)
    assert_close(products(q, k), expected)
    read = torch.stack([expected[:, h] @ v[:, :, h * G // H] for h in range(H)], dim=2)
    assert_close(weighted(expected, v), read)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("make", SPARSE, ids=lambda m: m.func.__name__)
@pytest.mark.parametrize("kernel", [plainly, functools.partial(fused, scale=SCALE)], ids=["eager", "fused"])
def test_blocks_give_what_all_pairs_give(make, causal, kernel):
    """Forward and backward, in rows that are no multiple of a block."""
    layout, mask = Layout.full(B, 301), make(causal)
    view = see(mask, layout)
    assert view.blocks is not None
    tensors = draw(301)
    got, expected = attend(*tensors, view, kernel), attend(*tensors, dense_view(mask, layout), plainly)
    assert_close(got, expected)
    for g, e in zip(gradients(got, tensors), gradients(expected, tensors), strict=True):
        assert_close(g, e)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("make", SPARSE[:2], ids=lambda m: m.func.__name__)
def test_windows_are_followed_through_packing_and_padding(make, causal):
    """Padding may stand even inside a document: real tokens are brought together first."""
    layout, mask = scattered(331), make(causal)
    view = see(mask, layout)
    assert view.blocks is not None
    assert view.blocks.order is not None
    tensors = draw(331)
    got = attend(*tensors, view, functools.partial(fused, scale=SCALE))
    expected = attend(*tensors, dense_view(mask, layout), plainly)
    assert_close(got, expected)
    for g, e in zip(gradients(got, tensors), gradients(expected, tensors), strict=True):
        assert_close(g, e)
    assert not got[~layout.real].any()


class Siblings(Window):
    """A token sees its neighbours that hang on the same word."""

    def sees(self, q, k):
        return super().sees(q, k) & (q.heads == k.heads)


@pytest.mark.parametrize("whole", [True, False])
def test_trees_are_cut_as_their_tokens_are(whole):
    layout = Layout.full(B, 331) if whole else scattered(331)
    layout = layout._replace(heads=torch.randint(3, (B, 331)))
    mask = Siblings(True, size=20)
    view = see(mask, layout)
    assert view.blocks is not None
    tensors = draw(331)
    expected = attend(*tensors, dense_view(mask, layout), plainly)
    assert_close(attend(*tensors, view, functools.partial(fused, scale=SCALE)), expected)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("make", SPARSE[2:], ids=lambda m: m.func.__name__)
def test_patterns_are_followed_in_each_document(make, causal):
    """Through packing and padding, forward and backward; real tokens of a document may have padding among them."""
    layout, mask = scattered(701), make(causal)
    view = see(mask, layout)
    assert view.blocks is not None
    assert view.blocks.pairs < 701 * 701 / 2
    tensors = draw(701)
    got = attend(*tensors, view, functools.partial(fused, scale=SCALE))
    expected = attend(*tensors, dense_view(mask, layout), plainly)
    assert_close(got, expected)
    for g, e in zip(gradients(got, tensors), gradients(expected, tensors), strict=True):
        assert_close(g, e)
    assert not got[~layout.real].any()


@pytest.mark.parametrize("make", SPARSE[2:], ids=lambda m: m.func.__name__)
def test_patterns_of_documents_that_begin_later_or_elsewhere_are_followed(make):
    """A chunk of a document has no first token; documents of a row need not stand in order."""
    mask = make(True)
    late = Layout.full(B, 500).position + 77
    layout = Layout(late, torch.tensor([[3], [1]]).expand(B, 500))
    mixed = Layout.packed(torch.arange(4).flip(0).repeat_interleave(125).expand(B, 500))
    for one in (layout, mixed):
        assert see(mask, one).blocks is not None
        tensors = draw(500)
        expected = attend(*tensors, dense_view(mask, one), plainly)
        assert_close(attend(*tensors, see(mask, one), functools.partial(fused, scale=SCALE)), expected)


@pytest.mark.parametrize("make", SPARSE[2:], ids=lambda m: m.func.__name__)
def test_rows_of_very_short_documents(make):
    """Large blocks of one each would be more work than all pairs."""
    layout, mask = Layout.packed((torch.arange(300) // 2).expand(B, 300)), make(True)
    view = see(mask, layout)
    assert (view.blocks is None) == (make is SPARSE[2])
    tensors = draw(300)
    expected = attend(*tensors, dense_view(mask, layout), plainly)
    assert_close(attend(*tensors, view, functools.partial(fused, scale=SCALE)), expected)
    blank = Layout(*(torch.full((B, 300), PAD) for _ in range(2)))
    assert not attend(*tensors, see(mask, blank), functools.partial(fused, scale=SCALE)).any()


@pytest.mark.parametrize("make", SPARSE, ids=lambda m: m.func.__name__)
@pytest.mark.parametrize("causal", [True, False])
def test_pairs_are_those_that_are_computed(make, causal):
    for length in (100, 301, 1024):
        mask, layout = make(causal), Layout.full(1, length, "meta")
        q, k, v = (torch.empty(1, length, H, K, device="meta") for _ in range(3))
        with FlopCounterMode(display=False) as counter:
            attend(q, k, v, see(mask, layout), functools.partial(fused, scale=SCALE))
        assert counter.get_total_flops() == 2 * pairs(mask, length) * H * 2 * K


@pytest.mark.parametrize("make", SPARSE, ids=lambda m: m.func.__name__)
@pytest.mark.parametrize("causal", [True, False])
def test_pairs_grow_linearly(make, causal):
    mask = make(causal)
    assert pairs(mask, 16 * 4096) <= 16.5 * pairs(mask, 4096)
    assert pairs(Mask(causal), 16 * 4096) == 256 * pairs(Mask(causal), 4096)


def test_a_band_reaches_as_far_as_its_window():
    assert band(1, True).table(3).tolist() == [[0], [1], [2]]
    assert band(128, True).table(3).tolist() == [[0, PAD], [1, 0], [2, 1]]
    assert band(130, True).table(3).tolist() == [[0, PAD, PAD], [1, 0, PAD], [2, 1, 0]]
    assert band(128, False).table(3).tolist() == [[1, 0, PAD], [2, 1, 0], [2, 1, PAD]]


@pytest.mark.parametrize("make", SPARSE, ids=lambda m: m.func.__name__)
@pytest.mark.parametrize("causal", [True, False])
def test_a_positions_work_is_counted_for_the_pairs_that_are_computed(make, causal):
    class Working(AttentionPosition):
        def flops(self, queries, keys):
            return 3 * queries * keys

    for length in (20, 100, 301, 1024):
        assert bias_flops(Working(H, K), make(causal), length) == 3 * pairs(make(causal), length)
        assert bias_flops(Working(H, K), Mask(causal), length) == 3 * length * length


def test_rows_are_cut_where_a_third_of_the_pairs_is_left_out():
    mask = Window(True, size=32)  # each block reads itself and the one before
    assert pattern_of(mask, True, 64) is None
    assert pattern_of(mask, True, 96) is not None


def test_a_block_reads_no_more_than_there_is():
    assert BigBird(True, size=8).blocks.table(2).tolist() == [[0, PAD], [1, 0]]


def test_short_rows_are_not_cut():
    assert pattern_of(Window(True, size=20), True, 40) is None
    assert see(Window(True, size=20), Layout.full(B, 40)).blocks is None


@pytest.mark.parametrize("length", [7, 64, 65, 200, 600])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("heads", [(H, G, G), (H, H, H)], ids=["grouped", "each its own"])
def test_causal_rows_of_any_length_agree_with_all_pairs(length, dtype, heads):
    """In strips or not, forward and backward; bfloat16 to its own precision."""
    layout = Layout.full(B, length)
    tensors = draw(length, dtype, heads)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    got = fused(*tensors, see(Mask(True), layout), scale=SCALE)
    expected = plainly(*exact, see(Mask(True), layout))
    tolerance = {"atol": 1e-10, "rtol": 1e-10} if dtype == torch.float64 else {"atol": 0.05, "rtol": 0.05}
    assert_close(got.double(), expected, **tolerance)
    for g, e in zip(gradients(got, tensors), gradients(expected, exact), strict=True):
        assert_close(g.double(), e, **(tolerance if dtype == torch.float64 else {"atol": 0.1, "rtol": 0.1}))


def test_a_gradient_of_a_gradient_is_refused_where_it_would_be_wrong():
    """Strips keep their weights as numbers."""
    q, k, v = draw(70, heads=(H, H, H))
    out = fused(q, k, v, see(Mask(True), Layout.full(B, 70)), scale=SCALE)
    (first,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("heads", [(H, G, G), (H, H, H)], ids=["grouped", "each its own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [40, 600])
def test_dropout_spares_the_sum_of_weights_on_average(length, dtype, heads):
    """Whichever way is taken: the values are ones, so that what is read is the sum of weights."""
    q, k, v = (t.detach() for t in draw(length, dtype, heads))
    bias = torch.zeros(1, H, length, length, dtype=dtype)
    for mask, added in ((Mask(True), None), (Mask(False), None), (Mask(True), bias)):
        read = fused(q, k, torch.ones_like(v), see(mask, Layout.full(B, length)), scale=SCALE, bias=added, dropout=0.5)
        assert read.float().std() > 0.02
        assert abs(read.float().mean() - 1) < 0.15


@pytest.mark.parametrize("length", [30, 600])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_bias_is_added_under_any_mask(length, dtype):
    tensors = draw(length, dtype)
    bias = torch.randn(1, H, length, length, dtype=torch.float64, requires_grad=True)
    for mask in (Mask(False), Mask(True), Strided(True, stride=5)):
        view = see(mask, Layout.full(B, length))
        got = fused(*tensors, view, scale=SCALE, bias=bias)
        q, k, v = (t.detach().double() for t in tensors)
        scores = products(q, k) * SCALE + bias
        allowed = allowed_by(view)
        scores = scores if allowed is None else scores.masked_fill(~allowed, -math.inf)
        tolerance = 1e-10 if dtype == torch.float64 else 0.05
        assert_close(got.double(), weighted(scores.softmax(-1), v), atol=tolerance, rtol=tolerance)
        assert torch.autograd.grad(got.sum(), bias)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_mask_hides_the_same_in_any_precision(dtype):
    tensors = draw(30, dtype)
    for mask in (Mask(False), Strided(True, stride=5), Strided(False, stride=5)):
        view = see(mask, Layout.full(B, 30))
        expected = plainly(*(t.detach().double() for t in tensors), view)
        tolerance = 1e-10 if dtype == torch.float64 else 0.05
        assert_close(fused(*tensors, view, scale=SCALE).double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("widths", [(8, 12), (12, 8)])
def test_values_may_be_wider_or_narrower_than_keys(widths):
    key, value = widths
    q, k, v = (torch.randn(B, 90, H, w, dtype=torch.float64) for w in (key, key, value))
    for mask in (Mask(True), Mask(False)):
        view = see(mask, Layout.full(B, 90))
        assert_close(fused(q, k, v, view, scale=SCALE), plainly(q, k, v, view))


@pytest.mark.parametrize("kernel", [plainly, functools.partial(fused, scale=SCALE)], ids=["eager", "fused"])
@pytest.mark.parametrize("mask", [Mask(True), Mask(False), Window(True, size=3)], ids=["causal", "full", "window"])
def test_a_query_that_sees_nothing_reads_exactly_zero(mask, kernel):
    """And leaves no trace in any gradient."""
    document = torch.tensor([[0, 0, PAD, 0, 0], [PAD] * 5])
    position = torch.tensor([[0, 1, PAD, 2, 3], [PAD] * 5])
    layout = Layout(position, document)
    q, k, v = draw(5)
    out = attend(q, k, v, see(mask, layout), kernel)
    assert not out[1].any()
    assert not out[0, 2].any()
    assert out[0, [0, 1, 3, 4]].abs().min() > 0
    for gradient in torch.autograd.grad(out.square().sum(), (q, k, v)):
        assert gradient.isfinite().all()
        assert not gradient[1].any()
        assert not gradient[0, 2].any()


def test_other_documents_of_a_memory_are_hidden():
    queries = Layout.packed(torch.tensor([[0, 0, 1], [0, 1, 2]]))
    keys = Layout.packed(torch.tensor([[0, 1, 1, PAD], [1, 1, 2, 2]]))
    view = see(Mask(False), queries, keys)
    expected = queries.document[:, :, None] == keys.document[:, None, :]
    assert torch.equal(view.allowed & ~view.blind[..., 0], expected)
    assert view.blind.flatten().tolist() == [False, False, False, True, False, False]


def test_a_whole_memory_is_hidden_from_other_documents():
    """Also where the memory's layout alone says that nothing in it need be hidden."""
    queries = Layout.packed(torch.tensor([[0, 0, 1, PAD]]))
    view = see(Mask(False), queries, Layout.full(1, 3))
    assert view.blind.flatten().tolist() == [False, False, True, True]


def test_what_is_shared_under_a_name_is_not_mistaken_for_that_of_other_keys():
    layout = Layout.full(B, 5).fresh()
    assert layout.once("distances", lambda: "to its own tokens") == "to its own tokens"
    view = see(Mask(False), layout, Layout.full(B, 7))
    assert view.queries.once("distances", lambda: "to the others") == "to the others"


def test_whole_rows_need_no_mask():
    layout = Layout.full(B, 40)
    assert see(Mask(True), layout) == View(layout, layout, causal=True)
    assert see(Mask(False), layout) == View(layout, layout)
    memory = see(Mask(False), layout, Layout.full(B, 7))
    assert memory.allowed is None
    assert memory.blind is None


def test_a_policy_is_lowered_once_a_forward():
    asked = []

    class Counting(Window):
        def sees(self, q, k):
            asked.append(1)
            return super().sees(q, k)

    mask, layout = Counting(True, size=4), Layout.full(B, 30).fresh()
    assert see(mask, layout) is see(mask, layout)
    assert len(asked) == 1
    see(Counting(True, size=4), layout)
    assert len(asked) == 2
    see(mask, layout.fresh())
    assert len(asked) == 3


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("mask", [Mask(True), Mask(False), Window(True, size=5)], ids=["causal", "full", "window"])
@pytest.mark.parametrize("biased", [True, False])
def test_flex_agrees_with_all_pairs(mask, biased):
    """Forward; it has no backward on a CPU."""
    layout = scattered(50)
    view = see(mask, layout)
    q, k, v = (t.detach().float() for t in draw(50))
    bias = torch.randn(1, H, 50, 50) if biased else None
    expected = fused(q, k, v, view, scale=SCALE, bias=bias)
    assert_close(flexed(q, k, v, view, scale=SCALE, bias=bias), expected, atol=1e-5, rtol=1e-5)


def test_lowering_says_what_is_computed():
    assert lowering(Mask(False), "sdpa") == "native: everything is seen (sdpa)"
    assert lowering(Mask(True), "sdpa") == "native: is_causal (sdpa)"
    assert lowering(Mask(True), "sdpa", biased=True) == "dense fallback (sdpa)"
    assert lowering(Mask(True), "eager") == "dense fallback (eager)"
    assert lowering(Window(True), "eager") == "native: band (eager)"
    assert lowering(BigBird(True), "sdpa") == "native: blocks (sdpa)"
    assert lowering(Strided(True), "sdpa") == "dense fallback (sdpa)"


def test_a_pattern_outlives_the_device_it_was_made_under():
    """A model is tried on the meta device first; its policy must not keep a table without numbers."""
    with torch.device("meta"):
        pattern = band(40, causal=True).also_first(50, both_ways=False)
    assert pattern.table(4).tolist() == [[1, 0, PAD, PAD], [1, 0, PAD, PAD], [2, 1, 0, PAD], [3, 2, 1, 0]]


# Strips of queries -----------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch):
    """Strips of a few queries, in rows short enough to compare."""
    monkeypatch.setattr(functional, "AT_ONCE", 0)
    monkeypatch.setattr(functional, "STRIP", 600)


@pytest.mark.parametrize(
    "mask",
    [Mask(True), Mask(False), Strided(True, stride=5), Window(True, size=20), Longformer(False, size=9, n_global=3)],
    ids=["causal", "full", "strided", "window", "longformer"],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "scattered"])
def test_strips_give_what_all_queries_at_once_give(narrow, mask, whole):
    """Forward and backward, under masks in every form; what sees nothing stays zero."""
    layout = Layout.full(B, 131) if whole else scattered(131)
    made = []

    def kernel(q, k, v, view):
        made.append(q.shape[0] * q.shape[1] * k.shape[1] * H)
        assert made[-1] <= 600 or q.shape[1] == 1, "a strip holds no more than it may, or one query"
        return plainly(q, k, v, view)

    tensors = draw(131)
    got = attend(*tensors, see(mask, layout), in_strips(kernel, per_pair=H))
    assert len(made) > 1
    expected = attend(*tensors, dense_view(mask, layout), plainly)
    assert_close(got, expected)
    for g, e in zip(gradients(got, tensors), gradients(expected, tensors), strict=True):
        assert_close(g, e)


def test_strips_of_a_causal_row_make_equally_many_pairs_and_leave_out_what_is_hidden(narrow, monkeypatch):
    monkeypatch.setattr(functional, "STRIP", 6000)
    made = []

    def kernel(q, k, v, view):
        made.append(q.shape[1] * k.shape[1])
        return plainly(q, k, v, view)

    attend(*draw(400), see(Mask(True), Layout.full(B, 400)), in_strips(kernel, per_pair=1))
    assert max(made) <= 6000 / B
    assert min(made[:-1]) > 0.8 * max(made)
    assert 0.5 < sum(made) / 400**2 < 0.56


def test_a_strip_drops_the_same_weights_when_it_is_made_again(narrow):
    """What is read is linear in the values, so that their gradients say which weights the backward saw."""
    q, k, v = draw(60)

    def dropping(q, k, v, view):
        scores = (products(q, k) * SCALE).masked_fill(~allowed_by(view), -math.inf)
        return weighted(dropout(scores.softmax(-1), 0.5), v)

    out = attend(q, k, v, see(Mask(True), Layout.full(B, 60)), in_strips(dropping, per_pair=H))
    out.sum().backward()
    assert_close((v.grad * v).sum(), out.sum())


def test_strips_keep_no_pairs_for_the_backward(narrow):
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    view = see(Mask(True), Layout.full(B, 200))
    for kernel in (plainly, in_strips(plainly, per_pair=H)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            attend(*draw(200), view, kernel)
        assert (max(kept, default=0) < 200 * 200) == (kernel is not plainly)


def test_rows_of_the_usual_size_are_read_at_once():
    calls = []

    def kernel(q, k, v, view):
        calls.append(q.shape[1])
        return v

    rows = Layout.full(8, 512, "meta")
    q, k, v = (torch.empty(8, 512, 8, K, device="meta") for _ in range(3))
    attend(q, k, v, see(Mask(True), rows), in_strips(kernel, per_pair=8))
    assert calls == [512]
