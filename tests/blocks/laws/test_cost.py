"""Holds the laws of cost to: a block that declares what is true passes, and one that does not is found out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks.cases import factory, layer_spec, mask_of, mixer_of, model_of, stack_of
from blocks.contracts import NEVER, Cost, Layout, Mask, Memory, Mixer, Path, Site, State
from blocks.laws import (
    Broken,
    D,
    a_model_costs_what_it_says,
    costs_what_it_says,
    holds_what_it_says,
    lowers_as_it_says,
    reaches_what_it_says,
    takes_the_steps_it_says,
)
from blocks.laws.cost import count_flops, growth, held, state_after
from blocks.matrix import lowered


@dataclass(frozen=True, slots=True)
class Kept(State):
    """Every token so far, in one tensor that is made again at each call."""

    x: Tensor  # (B, T, D)


class Mean(Mixer[Any]):
    """The mean of what came before and a token. Its state grows from call to call."""

    declares: int | None = None

    def __init__(self, mask: Mask) -> None:
        super().__init__(D, mask)
        self.scale = nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor, layout: Layout, state: Any = None, memory: Memory | None = None) -> tuple[Tensor, Any]:
        past = x[:, :0] if state is None else self.kept(state)
        seen = torch.cat([past, x], dim=1)
        count = torch.arange(1, seen.shape[1] + 1, device=x.device)[:, None]
        y = (seen.cumsum(1) / count)[:, past.shape[1] :] * self.scale
        return y, None if state is None else self.keep(seen)

    def kept(self, state: Any) -> Tensor:
        return state.x

    def keep(self, seen: Tensor) -> Any:
        return Kept(seen)

    def empty_state(self, rows: int, capacity: int) -> Any:
        return self.keep(self.scale.new_zeros(rows, 0, D))

    def cost(self, length: int) -> Cost:
        state = length * D * self.scale.element_size() if self.declares is None else self.declares
        return Cost(D, 0, state, steps=math.ceil(math.log2(length)))


@dataclass(frozen=True, slots=True)
class Hidden(State):
    """Tokens where nothing that counts tensors in fields finds them."""

    box: dict[str, list[Tensor]]


class Hiding(Mean):
    """Keeps every token, and declares no state."""

    declares = 0

    def kept(self, state: Any) -> Tensor:
        return state.box["tokens"][0]

    def keep(self, seen: Tensor) -> Any:
        return Hidden({"tokens": [seen]})


def test_a_state_that_grows_from_call_to_call_is_what_it_is():
    block = Mean(Mask(True)).double()
    holds_what_it_says(block)
    assert block.empty_state(1, 8).bytes() == 0
    assert state_after(block, 8) == 8 * D * 8


def test_a_block_that_declares_no_state_and_keeps_every_token_is_found():
    with pytest.raises(
        Broken, match=r"^cost declares 0 bytes of state in torch.float64 after 6 tokens in 1 calls, but 3072"
    ):
        holds_what_it_says(Hiding(Mask(True)).double())


def test_a_block_that_decides_by_values_is_counted_where_it_is():
    plain, deciding = (mixer_of("attention/mha", Mask(True)) for _ in range(2))

    def read(_, given):
        given[0].sum().item()

    deciding.register_forward_pre_hook(read)
    assert count_flops(deciding, 16) == count_flops(plain, 16) > 0
    costs_what_it_says(deciding)
    takes_the_steps_it_says(deciding)


def test_a_view_holds_all_that_it_is_a_view_of():
    whole = torch.zeros(4, 100)
    assert held(Kept(whole[:, :1])) == 4 * 100 * 4
    assert held(Kept(whole[:, :1].clone())) == 4 * 4


@pytest.mark.parametrize("name", ["attention/mha", "attention/mqa", "attention/latent", "attention/nystrom"])
def test_a_memory_counts(name):
    block = mixer_of(name, Mask(False), "position/none").double()
    alone, short, long = block.cost(8), block.cost(8, 20), block.cost(8, 40)
    assert alone.state_bytes == 0
    assert alone.parameters == short.parameters == long.parameters
    assert short.flops < long.flops
    if name == "attention/nystrom":  # a summary, whatever the memory
        assert 0 < short.state_bytes == long.state_bytes
    else:
        assert 2 * (short.state_bytes - 8) == long.state_bytes - 8 > 0


def test_a_memory_that_is_not_counted_is_found(monkeypatch):
    block = mixer_of("attention/mha", Mask(False), "position/none").double()
    told = type(block).cost
    monkeypatch.setattr(type(block), "cost", lambda self, length, memory=None: told(self, length))
    for law in (costs_what_it_says, holds_what_it_says):
        with pytest.raises(Broken, match="that read a memory of"):
            law(block)


def test_an_encoder_decoder_counts_its_source():
    model = model_of("model/encoder_decoder").double()
    a_model_costs_what_it_says(model)
    none, some = model.cost(8, 0), model.cost(8, 10)
    assert some.state_bytes - none.state_bytes == 2 * 10 * (2 * D * 8 + 16)  # keys, values and places in two layers


# Steps ---------------------------------------------------------------------------------------------------------------


def _steps(name: str, mask: Mask, says: Any, monkeypatch: Any) -> None:
    block = mixer_of(name, mask, "position/none").double()
    told = type(block).cost
    monkeypatch.setattr(type(block), "cost", lambda self, n, memory=None: told(self, n)._replace(steps=says(n)))
    takes_the_steps_it_says(block)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("recurrent/rnn", lambda n: 1),
        ("recurrent/rnn", lambda n: n.bit_length()),
        ("recurrent/min_gru", lambda n: n),
        ("recurrent/min_gru", lambda n: 1),
        ("linear/retention", lambda n: n.bit_length()),
        ("attention/mha", lambda n: n),
    ],
)
def test_steps_that_grow_otherwise_are_found(name, says, monkeypatch):
    with pytest.raises(Broken, match=r"^steps must grow as the chain of operations does"):
        _steps(name, Mask(True), says, monkeypatch)


def test_steps_may_be_counted_in_larger_units(monkeypatch):
    _steps("recurrent/rnn", Mask(True), lambda n: 3 * n + 7, monkeypatch)


# Paths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 9, 31])
def test_a_path_is_counted_in_layers_and_in_operations(distance, causal):
    """Against closed forms: windows and convolutions hop, one layer of the rest is enough."""
    n, row = distance, 64

    def path(name: str, mask: str = "") -> Path:
        policy = mask_of(mask, causal) if mask else Mask(causal)
        return mixer_of(name, policy, "position/none").path(n, row)

    hops = math.ceil(n / 3)
    assert path("attention/mha") == (1, 1)
    assert path("attention/mha", "mask/window") == (hops, hops)  # 4 tokens, its own among them
    assert path("convolution/word_window") == (math.ceil(n / 2), math.ceil(n / 2))
    assert path("convolution/short_convolution") == (hops, hops)
    assert path("recurrent/lstm") == (1, n)
    assert path("recurrent/min_gru").layers == path("linear/retention").layers == 1
    assert path("attention/mha", "mask/chunked") == NEVER
    dilated = path("attention/mha", "mask/dilated")
    assert dilated == (NEVER if n % 2 else (math.ceil(n / 6),) * 2)
    strided = 1 if n < 4 or n % 4 == 0 else 2
    assert path("attention/mha", "mask/strided") == (strided, strided)
    globally = hops if causal else min(hops, 2)  # later tokens can not go by the first ones
    assert path("attention/mha", "mask/longformer") == (globally, globally)


def test_the_layers_of_a_stack_are_walked_in_order():
    local = layer_spec(mask={"name": "mask/window", "size": 4})
    spec = {"name": "stack/plain", "layers": [local, local, layer_spec()], "norm": "norm/rms"}
    stack = factory(spec, ("stack",))(D, Site(causal=True, max_length=64, n_layers=3, decoder_layers=3))
    assert [stack.path(n, 16).layers for n in (1, 3, 4, 6, 7, 15)] == [1, 1, 2, 2, 3, 3]
    assert stack_of(mask={"name": "mask/window", "size": 4}).path(7, 16) == NEVER
    with pytest.raises(ValueError, match=r"^distance must be between 1 and 15 in this row, but got 16\.$"):
        stack_of(mask={"name": "mask/window", "size": 4}).path(16, 16)


def test_a_feed_forward_that_looks_back_goes_the_way_too():
    stack = stack_of(mask={"name": "mask/window", "size": 4}, ffn="ffn/rwkv_channel_mix").double()
    assert [stack.path(n, 16).layers for n in (3, 4, 5, 8)] == [1, 1, 2, 2]
    reaches_what_it_says(stack)


@pytest.mark.parametrize(
    ("mask", "declared", "sentence"),
    [
        (
            "mask/window",
            Mask(True),
            "through 1 layers token 4 must depend on token 0, as reads declares, but it does not.",
        ),
        ("mask/full", None, "through 1 layers token 0 must not depend on token 4, as reads declares, but it does."),
    ],
)
def test_a_reach_that_is_not_there_is_found(mask, declared, sentence, monkeypatch):
    block = mixer_of("attention/mha", mask_of(mask, mask == "mask/window"), "position/none").double()
    policy = declared or mask_of("mask/window", False)
    monkeypatch.setattr(type(block), "reads", lambda self, length: policy.pairs(length))
    with pytest.raises(Broken, match=f"^{re.escape(sentence)}$"):
        reaches_what_it_says(block)


@pytest.mark.parametrize("says", [Path(1, 1), Path(9, 9), NEVER])
def test_a_path_of_another_length_is_found(says, monkeypatch):
    block = mixer_of("attention/mha", mask_of("mask/window", True), "position/none").double()
    monkeypatch.setattr(type(block), "path", lambda self, distance, length: says)
    with pytest.raises(Broken, match=r"^path declares (1|9|None) layers to every token \d+ away in 16, but"):
        reaches_what_it_says(block)


# Lowering ------------------------------------------------------------------------------------------------------------


class Pairs(Mean):
    """Computes every pair, whatever the mask."""

    def forward(self, x: Tensor, layout: Layout, state: Any = None, memory: Memory | None = None) -> tuple[Tensor, Any]:
        allowed = self.mask(layout, layout)
        weights = (x @ x.mT).masked_fill(~allowed, float("-inf")).softmax(-1)
        return weights @ x * self.scale, None


class Liar(Pairs):
    """The same, and declares otherwise."""

    def lowering(self) -> str:
        return "native: band"


def test_what_is_not_declared_is_not_native():
    window, causal = mask_of("mask/window", True), Mask(True)

    def verdict(block: Any) -> str:
        return lowered(block, lambda: growth(block))[0]

    assert verdict(Pairs(window)) == verdict(Liar(window)) == "dense"
    assert verdict(Pairs(causal)) == "unknown"
    assert verdict(Pairs(Mask(False))) == verdict(Mean(causal)) == "native"
    assert verdict(mixer_of("attention/mha", window, "position/none")) == "native"


def test_a_native_lowering_that_computes_every_pair_is_found():
    with pytest.raises(
        Broken, match=r"^lowering declares 'native: band', but twice the tokens are 4\.0 times the work\.$"
    ):
        lowers_as_it_says(Liar(mask_of("mask/window", True)))
    lowers_as_it_says(mixer_of("attention/mha", mask_of("mask/window", True), "position/none"))
