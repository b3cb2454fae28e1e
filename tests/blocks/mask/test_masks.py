"""Every policy against its rule written out for a pair, its blocks against its rule, and what it refuses."""

import functools

import pytest
import torch

from blocks.contracts import Layout, Mask
from blocks.functional import pattern_of
from blocks.mask.bigbird import BigBird
from blocks.mask.causal import Causal
from blocks.mask.chunked import Chunked
from blocks.mask.combined import And, Or
from blocks.mask.dilated import Dilated
from blocks.mask.full import Full
from blocks.mask.longformer import Longformer
from blocks.mask.prefix import Prefix
from blocks.mask.strided import Strided
from blocks.mask.window import Window

T = 60

RULES = {
    "full": (Full, False, lambda q, k: True),
    "causal": (Causal, True, lambda q, k: k <= q),
    "causal in an encoder": (Causal, False, lambda q, k: k <= q),
    "window": (functools.partial(Window, size=5), True, lambda q, k: 0 <= q - k < 5),
    "window both ways": (functools.partial(Window, size=5), False, lambda q, k: abs(q - k) < 5),
    "dilated": (functools.partial(Dilated, size=3, dilation=4), True, lambda q, k: q - k in (0, 4, 8)),
    "dilated both ways": (functools.partial(Dilated, size=2, dilation=3), False, lambda q, k: q - k in (-3, 0, 3)),
    "dilated by nothing": (functools.partial(Dilated, size=3, dilation=1), True, lambda q, k: 0 <= q - k < 3),
    "chunked": (functools.partial(Chunked, size=7), True, lambda q, k: q // 7 == k // 7 and k <= q),
    "chunked both ways": (functools.partial(Chunked, size=7), False, lambda q, k: q // 7 == k // 7),
    "strided": (
        functools.partial(Strided, stride=6),
        True,
        lambda q, k: k <= q and (q - k < 6 or (q - k) % 6 == 0),
    ),
    "strided both ways": (functools.partial(Strided, stride=6), False, lambda q, k: abs(q - k) < 6 or (q - k) % 6 == 0),
    "prefix": (functools.partial(Prefix, size=9), False, lambda q, k: k < 9 or k <= q),
    "longformer": (
        functools.partial(Longformer, size=4, n_global=3),
        True,
        lambda q, k: k <= q and (q - k < 4 or k < 3),
    ),
    "longformer both ways": (
        functools.partial(Longformer, size=4, n_global=3),
        False,
        lambda q, k: abs(q - k) < 4 or k < 3 or q < 3,
    ),
}


def table(mask: Mask, length: int = T) -> torch.Tensor:
    layout = Layout.full(1, length)
    return mask(layout, layout)[0]


@pytest.mark.parametrize("name", RULES)
def test_it_shows_what_its_rule_says(name):
    make, causal, rule = RULES[name]
    expected = torch.tensor([[rule(q, k) for k in range(T)] for q in range(T)])
    assert torch.equal(table(make(causal)), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_bigbird_shows_near_first_and_random_blocks(causal):
    mask = BigBird(causal, size=4, n_near=2, n_global=1, n_random=2, seed=3)
    shown = table(mask)
    blocks = shown.view(T // 4, 4, T // 4, 4).any(dim=3).any(dim=1)
    n = T // 4
    for q in range(0 if causal else 1, n):
        others = set(blocks[q].nonzero().flatten().tolist())
        near = {k for k in range(n) if abs(q - k) < 2 and (k <= q or not causal)}
        assert near | {0} <= others
        drawn = others - near - {0}
        assert len([k for k in drawn if k < q]) == min(2, max(q - 2, 0)), "each adds a block, as long as there are any"
        ahead = [k for k in drawn if k > q]
        assert len(ahead) <= (0 if causal else 2)
        if not causal and 2 * q < n:
            assert len(ahead) == min(2, q - 1)
            assert all(k <= 2 * q for k in ahead)
    if not causal:
        assert blocks[0].all()


def test_bigbirds_random_blocks_are_all_of_those_there_are_in_time():
    """Any number of draws is distinct: with as many as there are blocks, every block behind is seen."""
    mask = BigBird(True, size=1, n_near=3, n_global=2, n_random=40)
    assert torch.equal(table(mask, 45), torch.ones(45, 45, dtype=torch.bool).tril())


def test_bigbirds_random_blocks_are_frozen():
    """The same at every length, in every instance, and in other places for another seed."""
    long, short = table(BigBird(True, size=4), 120), table(BigBird(True, size=4), 60)
    assert torch.equal(long[:60, :60], short)
    assert not torch.equal(table(BigBird(True, size=4, seed=1)), short)


def test_bigbirds_random_blocks_are_spread_evenly():
    mask = BigBird(True, size=1, n_near=1, n_global=0, n_random=1)
    picked = table(mask, 400).tril(-1)[200:].nonzero()[:, 1].float()
    assert picked.numel() == 200
    assert abs(picked.mean() - 150) < 15  # uniform over 0 .. q - 1, for q from 200 to 400


def test_bigbird_sees_random_blocks_ahead_as_far_as_the_start_is():
    """And not the mirror image of those behind."""
    shown = table(BigBird(False, size=1, n_near=1, n_global=0, n_random=1), 400)[:200]
    place, apart = torch.arange(200), shown.clone()
    apart[place, place] = False
    behind, ahead = apart.tril(-1), apart.triu(1)
    assert (behind.sum(1) == (place > 0)).all()
    assert (ahead.sum(1) == (place > 0)).all()
    both = behind.any(1) & ahead.any(1)
    first, last = behind[both].long().argmax(1), ahead[both].long().argmax(1)
    reach = last - place[both]
    assert (reach <= place[both]).all()
    assert (reach == first).sum() < 20


def test_small_chunks_are_read_several_at_a_time():
    assert [Chunked(True, size=size).blocks.size for size in (1, 7, 32, 33, 100)] == [32, 35, 32, 33, 100]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        functools.partial(Window, size=5),
        functools.partial(Chunked, size=7),
        functools.partial(Longformer, size=5, n_global=3),
        functools.partial(BigBird, size=8),
        functools.partial(Dilated, size=3, dilation=4),
    ],
    ids=lambda m: m.func.__name__,
)
def test_its_blocks_hold_all_that_it_shows(make, causal):
    """Every pair that is shown is in a block that is read, and no block is read twice."""
    length = 700
    mask = make(causal)
    pattern = pattern_of(mask, True, length)
    assert pattern is not None
    n = -(-length // pattern.size)
    read = torch.zeros(n, n, dtype=torch.long)
    for q, row in enumerate(pattern.table(n).tolist()):
        for k in row:
            if k >= 0:
                read[q, k] += 1
    assert read.max() == 1
    pairs = read.bool().repeat_interleave(pattern.size, 0).repeat_interleave(pattern.size, 1)[:length, :length]
    pairs[: pattern.wide] = True
    assert not (table(mask, length) & ~pairs).any()
    assert pairs.sum() < length * length / 2


def test_and_shows_what_all_show():
    mask = And(True, policies=[functools.partial(Window, size=20), functools.partial(Strided, stride=6)])
    assert torch.equal(table(mask), table(Window(True, size=20)) & table(Strided(True, stride=6)))
    assert mask.window == 20
    assert mask.causal


def test_and_reaches_no_farther_than_its_nearest():
    near, far = functools.partial(Window, size=5), functools.partial(Dilated, size=3, dilation=4)
    assert And(True, policies=[near, far]).window == And(True, policies=[far, near]).window == 5
    assert And(True, policies=[Causal, Causal]).window is None


def test_or_shows_what_any_shows():
    mask = Or(False, policies=[functools.partial(Window, size=3), Causal])
    assert torch.equal(table(mask), table(Window(False, size=3)) | table(Causal(True)))
    assert not mask.causal
    assert mask.window is None


def test_or_of_windows_is_a_window():
    mask = Or(True, policies=[functools.partial(Window, size=3), functools.partial(Dilated, size=3, dilation=4)])
    assert mask.window == 9


def test_and_with_causal_is_causal():
    assert And(False, policies=[Full, Causal]).causal


def test_plain_masks_are_known_by_name():
    assert Full(False).plain
    assert Causal(True).plain
    assert not Window(True, size=3).plain


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Full(True),
            "mask must hide the future here, but got Full, which shows it. Use causal, or another mask that can.",
        ),
        (
            lambda: Prefix(True),
            "mask must hide the future here, but got Prefix, whose first tokens see each other both ways. "
            "Use it in an encoder, or causal here.",
        ),
        (lambda: Window(True, size=0), "size must be at least 1, but got 0."),
        (lambda: Dilated(True, size=0), "size must be at least 1, but got 0."),
        (lambda: Dilated(True, dilation=0), "dilation must be at least 1, but got 0."),
        (lambda: Chunked(True, size=-1), "size must be at least 1, but got -1."),
        (lambda: Strided(True, stride=0), "stride must be at least 1, but got 0."),
        (lambda: Prefix(False, size=0), "size must be at least 1, but got 0."),
        (lambda: Longformer(True, size=0), "size must be at least 1, but got 0."),
        (lambda: Longformer(True, n_global=-1), "n_global must be at least 0, but got -1."),
        (lambda: BigBird(True, n_near=0), "n_near must be at least 1, but got 0."),
        (lambda: BigBird(True, n_random=-1), "n_random must be at least 0, but got -1."),
        (lambda: And(True, policies=[]), "policies must name at least one mask, but got none."),
    ],
)
def test_it_refuses(make, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared)
        make()
    assert str(refusal.value) == message
