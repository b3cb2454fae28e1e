"""Holds the fused recurrences to torch's own cells, run token by token, document by document."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from blocks.contracts import PAD, Layout, Mask
from blocks.recurrent import _fused
from blocks.recurrent.gru import GRU
from blocks.recurrent.lstm import LSTM
from blocks.recurrent.rnn import RNN

CELLS = {RNN: nn.RNNCell, LSTM: nn.LSTMCell, GRU: nn.GRUCell}
D, H = 6, 5

# Two rows: padding before, between, inside and behind documents; the second row goes on with a document of the past.
POSITION = torch.tensor(
    [
        [PAD, 0, 1, PAD, 2, 0, 1, 2, PAD],
        [3, 4, PAD, PAD, 0, 0, 1, PAD, 2],
    ]
)
DOCUMENT = torch.tensor(
    [
        [PAD, 0, 0, PAD, 0, 1, 1, 1, PAD],
        [0, 0, PAD, PAD, 1, 2, 2, PAD, 2],
    ]
)
RAGGED = Layout(POSITION, DOCUMENT)


@pytest.fixture(params=list(CELLS), ids=lambda block: block.__name__)
def block(request: pytest.FixtureRequest) -> type:
    return request.param


def make(block: type, causal: bool = True) -> nn.Module:
    return block(D, Mask(causal), d_hidden=H).double()


def cell_of(mixer: nn.Module, suffix: str = "") -> nn.Module:
    """torch's cell with the weights of one direction of ``mixer``."""
    cell = CELLS[type(mixer)](D, H).double()
    cell.load_state_dict({k: getattr(mixer.cell, f"{k}_l0{suffix}") for k, _ in cell.named_parameters()})
    return cell


def hidden_of(carried: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return carried[0] if isinstance(carried, tuple) else carried


def read(cell: nn.Module, x: Tensor, carried: object = None) -> tuple[Tensor, object]:
    """The hidden state after each token of one document. (T, D) -> (T, H)"""
    out = []
    for token in x:
        carried = cell(token[None], carried)
        out.append(hidden_of(carried)[0])
    return torch.stack(out), carried


def documents(row: int) -> list[Tensor]:
    return [(DOCUMENT[row] == d).nonzero()[:, 0] for d in range(int(DOCUMENT[row].max()) + 1)]


def test_every_document_is_read_as_if_it_were_alone(block: type) -> None:
    mixer, x = make(block), torch.randn(2, 9, D, dtype=torch.float64)
    y, state = mixer(x, RAGGED)
    assert state is None
    for row in range(2):
        for at in documents(row):
            expected, _ = read(cell_of(mixer), x[row, at])
            assert_close(y[row, at], mixer.to_out(expected))


def test_both_directions_stop_at_the_ends_of_a_document(block: type) -> None:
    mixer, x = make(block, causal=False), torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = mixer(x, RAGGED)
    for row in range(2):
        for at in documents(row):
            forward, _ = read(cell_of(mixer), x[row, at])
            backward, _ = read(cell_of(mixer, "_reverse"), x[row, at].flip(0))
            assert_close(y[row, at], mixer.to_out(torch.cat([forward, backward.flip(0)], dim=-1)))


def test_a_document_goes_on_from_the_state_and_a_new_one_does_not(block: type) -> None:
    mixer, x = make(block), torch.randn(2, 9, D, dtype=torch.float64)
    empty = mixer.empty_state(2, 9)
    past = type(empty)(*(torch.randn(2, H, dtype=torch.float64) for _ in empty.__slots__))
    y, state = mixer(x, RAGGED, past)
    carried = tuple(getattr(past, name)[1:] for name in past.__slots__)
    expected, _ = read(cell_of(mixer), x[1, :2], carried if len(carried) == 2 else carried[0])
    assert_close(y[1, :2], mixer.to_out(expected))
    for row, at in ((0, documents(0)[-1]), (1, documents(1)[-1])):
        expected, last = read(cell_of(mixer), x[row, at])
        assert_close(y[row, at], mixer.to_out(expected))
        assert_close(state.hidden[row], hidden_of(last)[0])


def test_a_state_is_held_where_a_row_has_nothing_to_read(block: type) -> None:
    mixer = make(block)
    x = torch.randn(2, 4, D, dtype=torch.float64)
    _, before = mixer(x, Layout.full(2, 4), mixer.empty_state(2, 16))
    for length in (1, 3):
        blank = torch.full((2, length), PAD)
        y, after = mixer(x[:, :length], Layout(blank, blank), before)
        assert y.isfinite().all()
        assert all(torch.equal(getattr(after, n), getattr(before, n)) for n in before.__slots__)
    half = Layout(torch.tensor([[4, 5, 6], [PAD, PAD, PAD]]), torch.tensor([[0, 0, 0], [PAD, PAD, PAD]]))
    _, after = mixer(x[:, :3], half, before)
    assert torch.equal(after.hidden[1], before.hidden[1])
    assert not torch.equal(after.hidden[0], before.hidden[0])


def test_gradients_of_packed_rows_are_those_of_separate_documents(block: type) -> None:
    mixer, x = make(block), torch.randn(2, 9, D, dtype=torch.float64, requires_grad=True)
    y, _ = mixer(x, RAGGED)
    (y * RAGGED.real[..., None]).square().sum().backward()
    got = [x.grad, *(p.grad for p in mixer.parameters())]
    x.grad = None
    mixer.zero_grad(set_to_none=True)
    parts = [mixer(x[row : row + 1, at], Layout.full(1, len(at)))[0] for row in range(2) for at in documents(row)]
    torch.cat(parts, dim=1).square().sum().backward()
    for g, expected in zip(got, [x.grad, *(p.grad for p in mixer.parameters())], strict=True):
        assert_close(g, expected)


@pytest.mark.parametrize("causal", [True, False])
def test_packed_rows_compile(block: type, causal: bool) -> None:
    mixer, x = make(block, causal), torch.randn(2, 9, D, dtype=torch.float64)
    y, _ = torch.compile(mixer, backend="eager")(x, RAGGED.fresh())
    assert_close(y, mixer(x, RAGGED)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
def test_autocast_takes_every_layout(block: type, causal: bool, dtype: torch.dtype) -> None:
    mixer, x = make(block, causal).float(), torch.randn(2, 9, D)
    expected = mixer(x, RAGGED)[0]
    state = mixer.empty_state(2, 9) if causal else None
    with torch.autocast("cpu", torch.bfloat16):
        for layout in (RAGGED, RAGGED.slice(0, 1), Layout.full(2, 9)):
            y, after = mixer(x[:, : layout.position.shape[1]].to(dtype), layout, state)
            assert y.isfinite().all()
            assert after is None or after.hidden.dtype == torch.float32
        y, _ = mixer(x.to(dtype), RAGGED)
    real = RAGGED.real
    assert (y.float() - expected)[real].norm() < 0.03 * expected[real].norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_an_lstm_computes_in_float32_where_the_processor_has_no_kernel_for_the_dtype_of_autocast(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, compiled: bool
) -> None:
    monkeypatch.setattr(_fused, "LSTM_DTYPES", frozenset())
    cell, x = nn.LSTM(D, H, batch_first=True), torch.randn(2, 9, D)
    run = torch.compile(_fused.run, backend="eager") if compiled else _fused.run
    for layout in (RAGGED, Layout.full(2, 9)):
        expected, _ = _fused.run(cell, x, layout)
        with torch.autocast("cpu", dtype):
            y, _ = run(cell, x, layout)
        assert y.dtype == torch.float32
        assert torch.equal(y, expected)
        y.sum().backward()


def test_every_dtype_that_an_lstm_is_said_to_take_is_taken() -> None:
    """On a processor without AVX-512 there is none."""
    cell, x = nn.LSTM(D, H, batch_first=True), torch.randn(2, 9, D)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            y, _ = _fused.run(cell, x, Layout.full(2, 9))
        assert y.dtype == (dtype if dtype in _fused.LSTM_DTYPES else torch.float32)


def test_the_cost_counts_every_weight_once_a_token(block: type) -> None:
    mixer = make(block)
    cost = mixer.cost(7)
    gates = {RNN: 1, GRU: 3, LSTM: 4}[block]
    assert cost.flops == 2 * 7 * (gates * H * (D + H) + H * D)
    assert cost.steps == 7
    assert mixer.path(5, 7) == (1, 5)
    assert cost.state_bytes == 8 * H * (2 if block is LSTM else 1)


def test_a_gap_in_what_is_seen_is_refused(block: type) -> None:
    class Odd(Mask):
        def sees(self, q: Layout, k: Layout) -> Tensor:
            return (q.position - k.position) % 2 == 1

    who = block.__name__
    sentence = f"mask must be causal or full for {who}, which has no way to skip tokens, but got Odd."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        block(D, Odd(True))


def test_both_directions_have_no_state(block: type) -> None:
    sentence = f"mask must be causal to go on from a state, but this {block.__name__} reads both ways."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make(block, causal=False).empty_state(1, 1)
