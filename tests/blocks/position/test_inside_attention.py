"""What every position inside attention is held to, in an attention small enough to be read."""

from contextlib import suppress

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import PAD, AttentionPosition, Layout, Mask
from registry import REGISTRY, factory

B, T, H, G, K = 2, 12, 4, 2, 8
NAMES = [n for n in REGISTRY.names("position") if issubclass(REGISTRY[n].constructor, AttentionPosition)]
TREE = torch.tensor([[1, 1, 1, 2, 5, 3, 5, 6, 6, 8, 9, 1], [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])


def built(name: str, causal: bool) -> AttentionPosition:
    """The position in float64 under a mask of this direction, which it may refuse."""
    position = factory(name, ("position",))(H, K)
    position.admit(Mask(causal))
    return position.double()


def ways(name: str) -> list[bool]:
    """The directions that the position admits, causal first; its own tests say why it refuses one."""
    found = []
    for causal in (True, False):
        with suppress(ValueError):
            built(name, causal)
            found.append(causal)
    return found


EITHER_WAY = pytest.mark.parametrize(("name", "causal"), [(n, ways(n)[0]) for n in NAMES])
EACH_WAY = pytest.mark.parametrize(("name", "causal"), [(n, causal) for n in NAMES for causal in ways(n)])


def draw(rows: int = B, length: int = T) -> tuple[torch.Tensor, ...]:
    shapes = (rows, length, H, K), (rows, length, G, K), (rows, length, G, K)
    return tuple(torch.randn(*shape, dtype=torch.float64) for shape in shapes)


def whole() -> Layout:
    return Layout.full(B, T)._replace(heads=TREE)


def rotated(position, q, k, layout):
    return position.rotate(q, layout, "query"), position.rotate(k, layout, "key")


@EACH_WAY
def test_gives_what_it_says_in_the_promised_shapes(name, causal):
    position, (q, k, _), layout = built(name, causal), draw(), whole()
    turned_q, turned_k = rotated(position, q, k, layout)
    assert (turned_q.shape, turned_k.shape) == (q.shape, k.shape)
    assert ("rotate" in position.acts) == (not torch.equal(turned_q, q))
    bias = position.bias(turned_q, turned_k, layout, layout)
    assert ("bias" in position.acts) == (bias is not None)
    assert bias is None or (bias.shape in [(1, H, T, T), (B, H, T, T)] and bias.dtype == torch.float64)
    extra = position.value_bias(torch.rand(B, H, T, T, dtype=torch.float64), layout, layout)
    assert ("value_bias" in position.acts) == (extra is not None)
    assert extra is None or extra.shape == (B, T, H, K)


@EACH_WAY
def test_a_row_that_is_known_to_be_whole_is_nothing_special(name, causal, attend):
    position, (q, k, v), layout = built(name, causal), draw(), whole()
    told = attend(position, q, k, v, layout, causal)
    assert_close(told, attend(position, q, k, v, layout._replace(dense=False), causal))
    assert_close(told, attend(position, q, k, v, layout.fresh(), causal))


@EACH_WAY
def test_some_queries_attend_as_among_all(name, causal, attend):
    position, (q, k, v), layout = built(name, causal), draw(), whole()
    all_of_them = attend(position, q, k, v, layout, causal)
    assert_close(attend(position, q, k, v, layout, causal, start=5), all_of_them[:, 5:])


@EACH_WAY
def test_keys_may_stand_in_any_order(name, causal):
    """As in a ring; with rows that are not filled yet."""
    position, (q, k, _), layout = built(name, causal), draw(), whole()
    q, k = rotated(position, q, k, layout)
    order = torch.randperm(T)
    ring = Layout(*(torch.nn.functional.pad(t[:, order], (0, 2), value=PAD) for t in layout[:2]))
    ring = ring._replace(heads=torch.nn.functional.pad(TREE[:, order], (0, 2), value=PAD))
    slots = torch.cat([k[:, order], torch.randn(B, 2, G, K, dtype=torch.float64)], dim=1)
    bias, turned = (position.bias(q, keys, layout, where) for keys, where in ((k, layout), (slots, ring)))
    if bias is not None:
        allowed = Mask(causal)(layout, layout)[:, None]
        assert_close((turned[..., :T] * allowed[..., order]), (bias * allowed)[..., order])
        assert turned.isfinite().all()
    p = torch.rand(B, H, T, T, dtype=torch.float64)
    read = position.value_bias(p, layout, layout)
    if read is not None:
        unfilled = torch.nn.functional.pad(p[..., order], (0, 2))
        assert_close(position.value_bias(unfilled, layout, ring), read)


@EITHER_WAY
def test_packed_documents_are_as_if_apart_and_padding_is_not_there(name, causal, attend):
    position, (q, k, v) = built(name, causal), draw()
    document = torch.tensor([[PAD, 0, 0, 0, 0, 0, 1, 1, 1, 1, PAD, PAD]] * B)
    heads = torch.where(document == PAD, PAD, torch.tensor([0, 2, 2, 2, 2, 3, 0, 0, 3, 1, 0, 0]))
    packed = Layout.packed(document, heads)
    together = attend(position, q, k, v, packed, causal)
    assert together.isfinite().all()
    for start, stop in ((1, 6), (6, 10)):
        part = slice(start, stop)
        alone = Layout.full(B, stop - start)._replace(heads=heads[:, part])
        assert_close(together[:, part], attend(position, q[:, part], k[:, part], v[:, part], alone, causal))


@EITHER_WAY
def test_moving_a_document_changes_nothing_if_it_says_so(name, causal, attend):
    position, (q, k, v), here = built(name, causal), draw(), whole()._replace(dense=False)
    there = Layout(here.position + 600, here.document, heads=TREE + 600)
    near, far = (attend(position, q, k, v, layout, causal) for layout in (here, there))
    if position.relative:
        assert_close(far, near)
    else:
        assert (far - near).abs().max() > 1e-6


@EITHER_WAY
def test_order_matters_where_it_acts(name, causal, attend):
    position, (q, k, v) = built(name, causal), draw()
    swapped = torch.tensor([0, 1, 4, 3, 2, *range(5, T)])
    last = attend(position, q, k, v, whole(), causal)[:, -1]
    moved = attend(position, q, k[:, swapped], v[:, swapped], whole(), causal)[:, -1]
    assert ((moved - last).abs().max() > 1e-6) == bool(position.acts)


@EACH_WAY
def test_every_parameter_learns_in_a_dozen_tokens(name, causal, attend):
    position, (q, k, v) = built(name, causal), draw()
    attend(position, q.requires_grad_(), k, v, whole(), causal).square().sum().backward()
    idle = [n for n, p in position.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
    assert all(p.grad.isfinite().all() for p in position.parameters())


@EITHER_WAY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_places_stay_exact_in_half_precision(name, causal, dtype, attend):
    """Near token 1,000 bfloat16 counts in steps of four or eight."""
    position, (q, k, v) = built(name, causal), draw()
    far = Layout(whole().position + 1000, whole().document, heads=TREE + 1000)
    exact = attend(position, q, k, v, far, causal)
    half = attend(position.to(dtype), *(t.to(dtype) for t in (q, k, v)), far, causal)
    error = (half.double() - exact).norm() / exact.norm()
    assert error < 0.02 if dtype == torch.bfloat16 else error < 0.004


@EITHER_WAY
def test_works_under_autocast(name, causal, attend):
    position, (q, k, v) = built(name, causal), draw()
    exact = attend(position, q, k, v, whole(), causal)
    with torch.autocast("cpu", torch.bfloat16):
        half = attend(position.float(), *(t.bfloat16() for t in (q, k, v)), whole(), causal)
    assert (half.double() - exact).norm() / exact.norm() < 0.02


@EITHER_WAY
@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (1, 9)])
def test_counts_its_own_work(name, causal, queries, keys):
    position = built(name, causal)
    q, k = torch.randn(1, queries, H, K).double(), torch.randn(1, keys, G, K).double()
    k_layout = Layout.full(1, keys)._replace(heads=TREE[:1, :keys] % keys)
    q_layout = k_layout if queries == keys else k_layout.slice(keys - queries, keys)
    with FlopCounterMode(display=False) as counter:
        position.rotate(q, q_layout, "query")
        position.bias(q, k, q_layout, k_layout)
        position.value_bias(torch.rand(1, H, queries, keys).double(), q_layout, k_layout)
    assert position.flops(queries, keys) == counter.get_total_flops()
