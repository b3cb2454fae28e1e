"""Windows: which tokens they hold, and in which order training meets them."""

import numpy as np
import pytest

from training.data.windows import Windows


def starts(windows: Windows, rows: int, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return np.concatenate([windows.shuffled(rows, seed, epoch, i) for i in range(windows.batches(rows))])


def test_spread_covers_the_text_end_to_end():
    windows = Windows(np.arange(26), size=6, overlap=1)
    assert [e.tokens.tolist() for e in windows.examples(windows.spread(None), None)] == [
        [*range(0, 6)],
        [*range(5, 11)],
        [*range(10, 16)],
        [*range(15, 21)],
        [*range(20, 26)],
    ]


def test_a_few_windows_come_from_all_over_the_text():
    windows = Windows(np.arange(1000), size=10, overlap=0)
    assert windows.spread(3).tolist() == [0, 500, 990]
    assert len(windows.spread(500)) == 100


def test_an_epoch_takes_every_window_once():
    windows = Windows(np.arange(1009), size=10, overlap=0)
    found = starts(windows, rows=3)
    assert len(found) == 99
    assert len({int(s) % 10 for s in found}) == 1
    assert len(set(found.tolist())) == 99
    assert found.min() >= 0
    assert found.max() + 10 <= 1009


def test_epochs_and_seeds_differ_and_repeat():
    windows = Windows(np.arange(10_000), size=10, overlap=1)
    first = starts(windows, 4)
    assert (first == starts(Windows(np.arange(10_000), 10, 1), 4)).all()
    assert not np.array_equal(first, starts(windows, 4, epoch=1))
    assert not np.array_equal(first, starts(windows, 4, seed=1))
    assert (first == starts(windows, 4)).all()


def test_every_offset_within_a_stride_turns_up():
    windows = Windows(np.arange(60), size=6, overlap=1)
    offsets = {int(starts(windows, 1, epoch=epoch).min()) for epoch in range(400)}
    assert offsets >= set(range(5))


@pytest.mark.parametrize("n", [6, 7, 11, 13, 16, 40])
def test_a_short_text_fills_a_batch_in_turns(n: int):
    windows = Windows(np.arange(n), size=6, overlap=1)
    for epoch in range(20):
        found = starts(windows, rows=8, epoch=epoch)
        assert len(found) == 8
        assert found.min() >= 0
        assert found.max() + 6 <= n
        _, times = np.unique(found, return_counts=True)
        assert times.max() - times.min() <= 1


def test_documents_are_told_apart_by_their_last_token():
    windows = Windows(np.array([5, 6, 2, 7, 2, 2, 8]), size=7, overlap=0)
    (example,) = windows.examples(np.array([0]), end=2)
    assert example.document is not None
    assert example.document.tolist() == [0, 0, 0, 1, 1, 2, 3]
