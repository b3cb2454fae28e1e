"""The loaders: every batch has one place, before and after an interruption."""

import itertools

import pytest
import torch

from blocks.contracts import Layout
from registry.errors import DataError
from training.batch import Batch
from training.data.loader import DRAW, ORDER, Fixed, Loader, check, generator
from training.tokenizer.byte import Byte


def place(epoch: int, index: int) -> Batch:
    """A batch that says which it is."""
    tokens = torch.tensor([[epoch, index]])
    return Batch(tokens, tokens, Layout.full(1, 2))


def seen(loader, n: int | None = None) -> list[tuple[int, ...]]:
    return [tuple(batch.tokens[0].tolist()) for batch in itertools.islice(loader, n)]


def test_epochs_follow_one_another():
    loader = Loader(place, 3)
    assert seen(loader) == [(0, 0), (0, 1), (0, 2)]
    assert seen(loader) == [(1, 0), (1, 1), (1, 2)]


def test_processes_that_share_batches_are_told_so(capsys):
    Loader(place, 3, rank=0, world=3)
    Loader(place, 3, rank=1, world=4)
    assert capsys.readouterr().out == ""
    Loader(place, 3, rank=0, world=4)
    assert capsys.readouterr().out == (
        "4 processes train on 3 batches of data: some take the same ones. "
        "Use more data, a smaller data.batch_size or fewer trainer.devices.\n"
    )


@pytest.mark.parametrize("stop", range(8))
def test_goes_on_where_another_stopped(stop: int):
    def stream(loader):
        while True:
            yield from loader

    whole = seen(stream(Loader(place, 3)), 12)
    before, after = Loader(place, 3), Loader(place, 3)
    first = seen(stream(before), stop)
    after.load_state_dict(before.state_dict())
    assert first + seen(stream(after), 12 - stop) == whole


def test_a_batch_that_was_never_asked_for_is_not_made():
    loader = Loader(place, 3)
    iter(loader)
    assert loader.state_dict() == {"given": 0}
    next(iter(loader))
    assert loader.state_dict() == {"given": 1}


def test_processes_share_the_batches():
    both = [seen(Loader(place, 6, rank, 2)) for rank in (0, 1)]
    assert both == [[(0, 0), (0, 2), (0, 4)], [(0, 1), (0, 3), (0, 5)]]


def test_processes_have_as_many_batches_each():
    assert [len(Loader(place, 5, rank, 2)) for rank in (0, 1)] == [2, 2]
    assert [seen(Loader(place, 1, rank, 2)) for rank in (0, 1)] == [[(0, 0)], [(0, 0)]]


def test_validation_begins_anew_each_time():
    loader = Fixed(lambda index: place(0, index), 3)
    assert seen(loader, 2) == [(0, 0), (0, 1)]
    assert seen(loader) == [(0, 0), (0, 1), (0, 2)]
    assert seen(Fixed(lambda index: place(0, index), 4, 1, 2)) == [(0, 1), (0, 3)]


def test_generators_are_functions_of_purpose_and_key():
    keys = [(ORDER, 0, 0), (DRAW, 0, 0), (DRAW, 0, 1), (DRAW, 1, 0), (DRAW, 0, 0, 1), (DRAW, 0, 0, -1)]
    drawn = [generator(*key).integers(2**63) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [generator(*key).integers(2**63) for key in keys]


def test_a_row_that_is_too_long_is_refused():
    with pytest.raises(DataError) as refusal:
        check(place(0, 0), Byte(), 1)
    assert str(refusal.value) == (
        "rows must have at most max_length tokens, but got 2 and 1. Set model.max_length=2, or a shorter data.length."
    )


@pytest.mark.parametrize("part", ["tokens", "source"])
def test_an_id_beyond_the_vocabulary_is_refused(part: str):
    batch = place(0, 0)._replace(**{part: torch.tensor([[0, 260]])})
    with pytest.raises(DataError) as refusal:
        check(batch, Byte(), 2)
    assert str(refusal.value) == (
        "token ids must be below 260, the size of the tokenizer's vocabulary, but got ids from 0 to 260."
    )
    check(place(0, 0)._replace(**{part: torch.tensor([[0, 259]])}), Byte(), 2)
