"""Dependency position against paths walked step by step through trees of every shape."""

import pytest
import torch

from blocks.contracts import PAD, Layout, Mask
from blocks.position.dependency import Dependency

SENTENCE = [1, 3, 1, 3, 5, 3, 3]  # the(0) cat(1) there(2) ate(3) a(4) fish(5) today(6)
CHAIN = [0, *range(12)]
STAR = [6] * 13
TWO_TREES = [1, 3, 1, 3, 4, 4, 3, 5]
"""Tokens 4, 5 and 7 hang together, and the others do."""


class Local(Mask):
    """Sees a few tokens."""

    window = 3


def ancestors(heads, token):
    """The token, its head, its head's head, ... up to the root."""
    chain = [token]
    while heads[chain[-1]] != chain[-1]:
        chain.append(heads[chain[-1]])
    return chain


def walk(heads, query, key):
    """Steps up from the query to the first common ancestor, and down from there to the key; roots hang on "sky"."""
    up, down = [*ancestors(heads, query), "sky"], [*ancestors(heads, key), "sky"]
    meeting = next(token for token in up if token in down)
    return up.index(meeting), down.index(meeting)


def layout_of(*trees):
    return Layout.full(len(trees), len(trees[0]))._replace(heads=torch.tensor(trees))


def random_tree(length):
    """Heads on both sides of their words."""
    order = torch.randperm(length).tolist()
    heads = [0] * length
    for i, word in enumerate(order):
        heads[word] = order[torch.randint(i, ()).item()] if i else word
    return heads


def bias_of(dependency, layout):
    q = torch.randn(*layout.position.shape, 2, 8)
    return dependency.bias(q, q, layout, layout)


@pytest.mark.parametrize("reach", [2, 16])
@pytest.mark.parametrize(
    "trees",
    [[SENTENCE], [CHAIN, STAR], [TWO_TREES, [*range(8)]], "random"],
    ids=["sentence", "extremes", "several", "random"],
)
def test_each_pair_gets_the_number_of_its_path(trees, reach):
    trees = [random_tree(20) for _ in range(4)] if trees == "random" else trees
    shape, length = Dependency(2, 8, reach=reach), Dependency(2, 8, reach=reach, path="length")
    by_shape, by_length = (bias_of(d, layout_of(*trees)) for d in (shape, length))
    for b, heads in enumerate(trees):
        for i in range(len(heads)):
            for j in range(len(heads)):
                up, down = walk(heads, i, j)
                row = min(up, reach) * (reach + 1) + min(down, reach)
                assert torch.equal(by_shape[b, :, i, j], shape.paths[:, row])
                assert torch.equal(by_length[b, :, i, j], length.paths[:, min(up + down, reach)])


def test_paths_of_a_sentence_are_as_a_grammarian_sees_them():
    heads = SENTENCE
    assert walk(heads, 0, 1) == (1, 0), "the determiner climbs to its noun"
    assert walk(heads, 3, 1) == (0, 1), "the verb has its subject below"
    assert walk(heads, 1, 5) == (1, 1), "subject and object are siblings"
    dependency = Dependency(1, 8, reach=2)
    rows, _ = dependency.rows(*[layout_of(heads)] * 2)
    assert [rows[0, i, j].item() for i, j in ((0, 1), (3, 1), (1, 5))] == [3, 1, 4]


def test_paths_between_trees_lead_over_their_roots():
    rows, _ = Dependency(1, 8, reach=8).rows(*[layout_of(TWO_TREES)] * 2)
    assert divmod(rows[0, 3, 4].item(), 9) == (1, 1), "from root to root, as between siblings"
    assert divmod(rows[0, 0, 5].item(), 9) == (3, 2)
    assert divmod(rows[0, 7, 3].item(), 9) == (3, 1)


def test_a_query_that_is_not_among_the_keys_is_a_root_of_its_own():
    keys, elsewhere = layout_of(SENTENCE), layout_of([0, 0])
    rows, _ = Dependency(1, 8).rows(elsewhere._replace(position=elsewhere.position + 50), keys)
    for j in range(7):
        assert [divmod(row, 9) for row in rows[0, :, j].tolist()] == [(1, len(ancestors(SENTENCE, j)))] * 2


def test_depth_below_the_root_adds_its_own_number():
    plain, deep = Dependency(2, 8, reach=3), Dependency(2, 8, reach=3, absolute="depth")
    deep.paths = plain.paths
    layout = layout_of(SENTENCE, random_tree(7))
    added = bias_of(deep, layout) - bias_of(plain, layout)
    for b in range(2):
        for j in range(7):
            depth = min(len(ancestors(layout.heads[b].tolist(), j)) - 1, 3)
            torch.testing.assert_close(added[b, :, :, j], deep.depths[:, depth, None].expand(2, 7))


def test_a_single_word_is_its_own_root():
    dependency = Dependency(2, 8)
    assert torch.equal(bias_of(dependency, layout_of([0]))[0, :, 0, 0], dependency.paths[:, 0])


def test_broken_trees_stay_finite():
    """A circle, a head that is not there, a padded row."""
    heads = torch.tensor([[1, 2, 0, 3], [9, 0, 9, 1], [PAD] * 4])
    position = torch.arange(4).expand(3, 4).clone()
    position[2] = PAD
    layout = Layout(position, torch.where(position == PAD, PAD, 0), heads=heads)
    assert bias_of(Dependency(2, 8, absolute="depth"), layout).isfinite().all()


def test_layers_of_one_forward_share_the_paths():
    dependency, layout = Dependency(2, 8), layout_of(SENTENCE).fresh()
    bias_of(dependency, layout)
    kept = dict(layout.scratch.kept)
    bias_of(dependency, layout)
    assert list(kept) == [(dependency, "rows")]
    assert layout.scratch.kept == kept


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (
            lambda: Dependency(1, 8).admit(Mask(True)),
            r"mask must not be causal for Dependency: the tree of a whole sentence tells the future, "
            r"but got Mask\.",
        ),
        (
            lambda: Dependency(1, 8).admit(Local(False)),
            r"mask must let a query see its whole sentence for Dependency, whose paths lead anywhere in "
            r"it, but got Local\.",
        ),
        (
            lambda: bias_of(Dependency(2, 8), Layout.full(1, 3)),
            r"layout\.heads must give the head of every token for positions in trees, but got None\. "
            r"Choose data that brings trees, or another position\.",
        ),
        (lambda: Dependency(1, 8, reach=0), r"reach must be positive, but got 0\."),
    ],
)
def test_refuses(act, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        act()
