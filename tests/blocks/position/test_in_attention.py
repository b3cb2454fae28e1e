"""Positions inside the real attention: what a cache, a window, padding and a compiler see is what the whole sees."""

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import AttentionPosition, Layout, Mask
from registry import REGISTRY, factory

B, T, D = 2, 12, 32
NAMES = [n for n in REGISTRY.names("position") if issubclass(REGISTRY[n].constructor, AttentionPosition)]
SPLITS = [(5, 7), (1,) * T, (3, 1, 1, 4, 3)]


def attention_of(name, mask):
    """Grouped-query attention in float64, or the sentence with which the position refuses the mask."""
    rule = factory({"name": mask, "size": 4} if mask == "window" else mask, ("mask",))(True)
    spec = {"name": "attention/gqa", "n_heads": 4, "n_kv_heads": 2}
    return factory(spec)(D, rule, factory(name, ("position",))).double().eval()


def lives(name, mask):
    try:
        attention_of(name, mask)
    except ValueError:
        return False
    return True


COMBINATIONS = [(n, m) for m in ("causal", "window") for n in NAMES if lives(n, m)]


def test_only_the_positions_that_say_why_are_missing():
    missing = {(n, m) for n in NAMES for m in ("causal", "window")} - set(COMBINATIONS)
    assert missing == {
        ("position/dependency", "causal"),
        ("position/dependency", "window"),
        ("position/cope", "window"),
    }


@torch.no_grad()
@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize(("name", "mask"), COMBINATIONS)
def test_chunks_and_steps_give_what_the_whole_gives(name, mask, split):
    attention = attention_of(name, mask)
    x, layout = torch.randn(B, T, D, dtype=torch.float64), Layout.full(B, T)
    whole, _ = attention(x, layout)
    state, parts, start = attention.empty_state(B, T), [], 0
    for length in split:
        part, state = attention(x[:, start : start + length], layout.slice(start, start + length), state)
        parts.append(part)
        start += length
    assert_close(torch.cat(parts, dim=1), whole)


@torch.no_grad()
@pytest.mark.parametrize(("name", "mask"), COMBINATIONS)
def test_a_prompt_padded_on_the_left_goes_on_as_one_that_is_not(name, mask):
    attention = attention_of(name, mask)
    x = torch.randn(1, T, D, dtype=torch.float64)
    whole, _ = attention(x, Layout.full(1, T))
    padded = torch.cat([torch.randn(1, 3, D, dtype=torch.float64), x[:, : T - 2]], dim=1)
    prompt = Layout.padded(torch.tensor([T - 2]), T + 1, side="left")
    first, state = attention(padded, prompt, attention.empty_state(1, T))
    assert_close(first[:, 3:], whole[:, : T - 2])
    for t in (T - 2, T - 1):
        prompt = prompt.next()
        y, state = attention(x[:, t : t + 1], prompt, state)
        assert_close(y, whole[:, t : t + 1])


class Written(Mask):
    """A window that no kernel knows for one, so that every pair is written out."""

    def sees(self, q, k):
        return (q.position - k.position).abs() < 4


@torch.no_grad()
@pytest.mark.parametrize("name", [n for n in NAMES if lives(n, "window")])
def test_a_band_of_blocks_gives_what_every_pair_written_out_gives(name):
    """A long row in a window asks for the bias of parts of the row only."""
    banded = attention_of(name, "window")
    written = factory({"name": "attention/gqa", "n_heads": 4, "n_kv_heads": 2})(
        D, Written(True), factory(name, ("position",))
    )
    written.double().load_state_dict(banded.state_dict())
    x, layout = torch.randn(1, 200, D, dtype=torch.float64), Layout.full(1, 200)
    assert_close(banded(x, layout)[0], written(x, layout)[0])
