"""What attention remembers: rings, ragged prompts, padding anywhere, and no more than it needs."""

import functools

import pytest
import torch
from torch.testing import assert_close

from blocks.attention.additive import AdditiveAttention
from blocks.attention.differential import DifferentialAttention
from blocks.attention.dot_product import DotProductAttention
from blocks.attention.grouped_query import GroupedQueryAttention
from blocks.attention.latent import LatentAttention
from blocks.attention.past import empty_past
from blocks.contracts import PAD, Layout
from blocks.mask.causal import Causal
from blocks.mask.chunked import Chunked
from blocks.mask.full import Full
from blocks.mask.longformer import Longformer
from blocks.mask.window import Window

D = 32
MIXERS = [
    functools.partial(GroupedQueryAttention, n_heads=4, n_kv_heads=2),
    functools.partial(LatentAttention, n_heads=4),
    functools.partial(DifferentialAttention, n_heads=4),
    DotProductAttention,
    AdditiveAttention,
]
MASKS = [Causal(True), Window(True, size=4), Chunked(True, size=5), Longformer(True, size=3, n_global=2)]


def build(make, mask):
    return make(D, mask, None).double().eval()


def draw(rows, length):
    return torch.randn(rows, length, D, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("mask", MASKS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("make", MIXERS, ids=lambda m: getattr(m, "func", m).__name__)
def test_any_cut_of_a_row_with_padding_anywhere_gives_the_whole(make, mask):
    """Two rows, documents side by side, padding between, inside and at both ends, in calls of random sizes."""
    mixer = build(make, mask)
    document = torch.tensor(
        [[PAD, 0, 0, 0, PAD, 0, 0, 1, 1, PAD, PAD, 1, 1, 1, 1, 1, 1, 2, 2, PAD], [0] * 18 + [PAD] * 2]
    )
    position = torch.full_like(document, PAD)
    for row in range(2):
        for one in range(3):
            position[row, document[row] == one] = torch.arange(int((document[row] == one).sum()))
    layout, x = Layout(position, document), draw(2, 20)
    whole = mixer(x, layout)[0]
    for sizes in ((20,), (1,) * 20, (2,) * 10, (3, 9, 1, 7), (9, 1, 1, 9), (1, 18, 1), (6, 6, 6, 2)):
        state, parts, start = mixer.empty_state(2, 18), [], 0
        for size in sizes:
            y, state = mixer(x[:, start : start + size], layout.slice(start, start + size), state)
            parts.append(y)
            start += size
        assert_close(torch.cat(parts, dim=1), whole)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_ragged_prompts_longer_than_the_ring_go_on_alone(side):
    mixer = build(MIXERS[0], Window(True, size=4))
    lengths = torch.tensor([11, 2, 7])
    x, more = draw(3, 11), draw(3, 6)
    layout = Layout.padded(lengths, 11, side=side)
    _, state = mixer(x, layout, mixer.empty_state(3, 17))
    assert state.position.shape[1] == 4 + 1
    outputs, here = [], layout.next()
    for step in range(6):
        y, state = mixer(more[:, step : step + 1], here, state)
        outputs.append(y)
        here = here.next()
    for row, length in enumerate(lengths.tolist()):
        alone = torch.cat([x[row][layout.real[row]], more[row]])[None]
        expected = mixer(alone, Layout.full(1, length + 6))[0]
        assert_close(torch.cat(outputs, 1)[row], expected[0, length:])


@torch.no_grad()
def test_rows_can_be_repeated_and_reordered_in_the_middle():
    mixer = build(MIXERS[1], Causal(True))
    x = draw(2, 9)
    layout = Layout.full(2, 9)
    _, state = mixer(x[:, :5], layout.slice(0, 5), mixer.empty_state(2, 9))
    rows = torch.tensor([1, 1, 0])
    y, _ = mixer(x[rows, 5:], Layout.full(3, 9).slice(5, 9), state.select(rows))
    assert_close(y, mixer(x, layout)[0][rows, 5:])


@torch.no_grad()
def test_a_whole_prompt_is_read_without_a_mask():
    """A dense layout begins its documents, so that nothing before can belong to them."""
    mixer = build(MIXERS[0], Causal(True))
    x = draw(2, 9)
    y, state = mixer(x, Layout.full(2, 9), mixer.empty_state(2, 12))
    assert_close(y, mixer(x, Layout.full(2, 9))[0])
    assert state.count.tolist() == [9, 9]


def test_slots_are_taken_in_turn_and_padding_takes_none():
    past = empty_past(1, 10, Window(True, size=3), torch.zeros(1), (1,))
    token = lambda n: torch.tensor([[[float(n)]]])  # noqa: E731
    for n, position in enumerate([0, PAD, 1, 2, PAD, 3]):
        here = torch.tensor([[position]])
        _, _, past = past.append((token(n),), Layout(here, here.clamp(max=0)), Window(True, size=3))
    assert past.kept[0][0, :3, 0].tolist() == [5.0, 2.0, 3.0]
    assert past.position[0].tolist() == [3, 1, 2, PAD]
    assert past.count.tolist() == [4]


def test_only_what_is_filled_is_looked_at():
    past = empty_past(1, 1000, Causal(True), torch.zeros(1), (1,))
    (seen,), where, _ = past.append((torch.ones(1, 1, 1),), Layout.full(1, 1)._replace(dense=False), Causal(True))
    assert seen.shape[1] == where.position.shape[1] == 64


def test_there_are_no_more_slots_than_tokens_will_come():
    """And one for padding."""
    assert empty_past(1, 2, Window(True, size=64), torch.zeros(1), (1,)).position.shape[1] == 2 + 1
    assert empty_past(1, 64, Window(True, size=2), torch.zeros(1), (1,)).position.shape[1] == 2 + 1
    assert empty_past(1, 0, Full(False), torch.zeros(1), (1,)).position.shape[1] == 0


def test_a_memory_is_kept_with_its_place_and_its_tree():
    layout = Layout.packed(torch.tensor([[0, 0, 1, PAD]]), heads=torch.tensor([[1, 1, 0, PAD]]))
    held = empty_past(1, 0, Full(False), torch.zeros(1), (1,)).hold((torch.ones(1, 4, 1),), layout).layout
    for kept, given in ((held.position, layout.position), (held.document, layout.document), (held.heads, layout.heads)):
        assert torch.equal(kept, given)


def test_more_tokens_than_were_asked_for_are_refused():
    past = empty_past(1, 4, Causal(True), torch.zeros(1), (1,))
    layout = Layout.full(1, 5)._replace(dense=False)
    sentence = r"^a state of 4 tokens must not be given more, but got 5\. Ask for more capacity\.$"
    with pytest.raises(ValueError, match=sentence):
        past.append((torch.ones(1, 5, 1),), layout, Causal(True))


def test_a_latent_is_smaller_than_keys_and_values():
    latent, full = (
        build(MIXERS[1], Causal(True)),
        build(functools.partial(GroupedQueryAttention, n_heads=4), Causal(True)),
    )
    numbers = [m.empty_state(1, 100).kept for m in (latent, full)]
    small, large = (sum(t[0, 0].numel() for t in kept) for kept in numbers)
    assert small == 16 + 4  # the latent and the slice
    assert large == 2 * D
