"""What every registered name is tried as, so that the laws reach it without a list.

``cases(name)`` builds a block from its defaults in each surrounding that its family can have: a mixer
under masks and positions, a residual rule or a feed-forward inside a small stack, a model whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

import blocks  # noqa: F401  (registers every block)
from blocks.contracts import Attention, AttentionPosition, Mask, Mixer, Model, Site, Stack, placed
from blocks.laws import PLACED_LAWS, D, Reader, V, stirred
from blocks.laws.specs import Spec, layer_spec, model_spec, stack_spec
from registry import REGISTRY, factory
from registry.core import Entry, Factory
from registry.others import required, small

__all__ = [
    "Case",
    "built",
    "cases",
    "is_attention_position",
    "layer_spec",
    "mask_of",
    "mixer_of",
    "model_of",
    "model_spec",
    "small",
    "stack_of",
    "stack_spec",
]

MIXERS = Mixer.families


HEADS = {"n_heads": 4}
"""Few and wide enough for every position."""

WAYS = {"both ways": False, "causal": True}


class Case(NamedTuple):
    """One surrounding of a block.

    label: What the surrounding is.
    build: From the block's spec to what is tried: the block, or what it is a part of. Refuses with ``ValueError``.
    spec: The block's spec.
    laws: What it is held to. None: the laws of its kind.
    """

    label: str
    build: Callable[[Spec], Any]
    spec: Spec
    laws: list[Callable[[Any], None]] | None = None

    def make(self, **choices: Any) -> Any:
        """What is tried, with some of the block's choices made otherwise."""
        return self.build({**self.spec, **choices})


def mask_of(spec: str | Spec, causal: bool) -> Mask:
    """A policy in a stack of this direction, with small sizes where only its name is given."""
    return factory(small(REGISTRY[spec]) if isinstance(spec, str) else spec, ("mask",))(causal)


def plain(causal: bool) -> str:
    """The policy that hides nothing but, if it must, the future."""
    return "mask/causal" if causal else "mask/full"


def is_attention_position(name: str) -> bool:
    """A position that acts inside attention; the others act at the foot of a stack."""
    return REGISTRY[name].facts[:1] == ("n_heads",)


def mixer_of(
    spec: str | Spec,
    mask: Mask,
    position: str | Spec | None = None,
    shared: Factory[AttentionPosition] | None = None,
) -> Mixer[Any]:
    """A mixer of width ``D`` under ``mask``; ``position`` None is what it prefers."""
    make: Any = factory(spec, MIXERS)
    kind = make.func
    if not issubclass(kind, Attention):
        name = position["name"] if isinstance(position, dict) else position
        if name not in (None, "position/none"):
            raise ValueError(f"position must act at the foot of a stack for {kind.__name__}, but got {name}.")
        return make(D, mask)
    return placed(make, D, mask, shared or factory(position or f"position/{kind.prefers['position']}"))


def stack_of(
    causal: bool = True, stack: str = "stack/plain", /, *, foot: tuple[str | Spec, ...] = (), **parts: Any
) -> Stack[Any]:
    """A small stack of two layers made of ``parts``, with embedding positions at its foot."""
    return _stack(stack_spec(stack, foot, **parts), causal)


def _stack(spec: Spec, causal: bool, reads: bool = False) -> Any:
    """A stack; one that reads a memory with a memory to read."""
    site = Site(causal=causal, max_length=64, n_layers=2, decoder_layers=2, reads_memory=reads)
    stack = factory(spec, ("stack",))(D, site)
    return Reader(stack) if reads else stack


def model_of(name: str = "model/decoder_only", **choices: Any) -> nn.Module:
    """A small model over ``V`` tokens; ``parts`` go to its layers."""
    return factory({**model_spec(name, **choices.pop("parts", {})), **choices}, ("model",))(V)


def cases(name: str) -> Iterator[Case]:
    """Every surrounding in which the block called ``name`` is tried."""
    entry = REGISTRY[name]
    make = SURROUNDINGS.get(entry.family)
    if make is not None:
        yield from make(entry)


def _mixers(entry: Entry) -> Iterator[Case]:
    spec = spec_of(entry)
    for mask in ("mask/full", "mask/causal", "mask/window"):
        for way, causal in WAYS.items():
            yield Case(f"{entry.short} {mask} {way}", partial(_under, mask, causal), spec)
    if entry.family == "attention":
        for position in filter(is_attention_position, REGISTRY.names("position")):
            for way, causal in WAYS.items():
                build = partial(_under, plain(causal), causal, position=position)
                yield Case(f"{entry.short} {position} {way}", build, spec, PLACED_LAWS)


def _masks(entry: Entry) -> Iterator[Case]:
    spec = small(entry)
    for way, causal in WAYS.items():
        yield Case(f"{entry.short} {way}", partial(mask_of, causal=causal), spec)
        yield Case(f"mha {entry.short} {way}", partial(_under, causal=causal, mixer="attention/mha"), spec)


def _positions(entry: Entry) -> Iterator[Case]:
    spec, short = spec_of(entry), entry.short
    if not is_attention_position(entry.name):
        yield Case(short, lambda spec: factory(spec)(D, 64), spec)
        yield Case(f"stack {short}", lambda spec: stack_of(foot=(spec,)), spec)
        return
    for way, causal in WAYS.items():
        build = partial(_with_heads, "position", mask=plain(causal), causal=causal, mixer="attention/mha")
        yield Case(f"mha {short} {way}", build, spec)
    build = partial(_with_heads, "position", mask="mask/window", causal=True, mixer="attention/gqa")
    yield Case(f"gqa {short} window", build, spec)


def _scores(entry: Entry) -> Iterator[Case]:
    """Scores and normalisers: by themselves, and in attention."""
    spec = spec_of(entry)
    facts = (4, D // 4)[: len(entry.facts)]
    yield Case(entry.short, lambda spec: factory(spec)(*facts), spec)
    for way, causal in WAYS.items():
        build = partial(_with_heads, entry.family, mask=plain(causal), causal=causal, mixer="attention/mha")
        yield Case(f"mha {entry.short} {way}", build, spec)


def _of_tokens(entry: Entry) -> Iterator[Case]:
    """Norms and feed-forwards: by themselves, and in a stack."""
    yield Case(entry.short, lambda spec: factory(spec)(D), spec_of(entry))
    yield from _in_stacks(entry)


def _residuals(entry: Entry) -> Iterator[Case]:
    site = Site(causal=True, max_length=64, depth=1, n_layers=3, decoder_layers=3)
    yield Case(entry.short, lambda spec: factory(spec)(D, site), spec_of(entry))
    yield from _in_stacks(entry)


def _in_stacks(entry: Entry) -> Iterator[Case]:
    for way, causal in WAYS.items():
        yield Case(f"stack {entry.short} {way}", partial(_stack_with, entry.family, causal), spec_of(entry))


def _layers(entry: Entry) -> Iterator[Case]:
    for way, causal in WAYS.items():
        spec = _of_layer(entry, mask=plain(causal))
        yield Case(f"stack {entry.short} {way}", partial(_stack_with, "layer", causal), spec)
    spec = _of_layer(entry, cross_attention={"name": "attention/mha", **HEADS})
    yield Case(f"stack {entry.short} with a memory", partial(_stack_with, "layer", True, reads=True), spec)


def _of_layer(entry: Entry, **parts: Any) -> Spec:
    """The choices of a layer that a stack makes for it, as far as it has them."""
    made = {key: value for key, value in layer_spec(**parts).items() if key in entry.choices}
    return {**required(entry), **made, "name": entry.name}


def _stacks(entry: Entry) -> Iterator[Case]:
    for way, causal in WAYS.items():
        spec = stack_spec(entry.name, mask=plain(causal))
        yield Case(f"stack {entry.short} {way}", partial(_stack, causal=causal), spec)


def _inits(entry: Entry) -> Iterator[Case]:
    yield Case(entry.short, lambda spec: factory(spec)(), spec_of(entry))
    yield Case(f"decoder_only {entry.short}", lambda spec: model_of(init=spec), spec_of(entry))
    yield Case(f"decoder_only {entry.short} untied", lambda spec: model_of(init=spec, tie=False), spec_of(entry))


SURROUNDINGS: dict[str, Callable[[Entry], Iterator[Case]]] = {
    **dict.fromkeys(MIXERS, _mixers),
    "mask": _masks,
    "position": _positions,
    "score": _scores,
    "normaliser": _scores,
    "norm": _of_tokens,
    "ffn": _of_tokens,
    "residual": _residuals,
    "layer": _layers,
    "stack": _stacks,
    "embedding": lambda entry: iter([Case(entry.short, lambda spec: factory(spec)(V, D), spec_of(entry))]),
    "head": lambda entry: iter([Case(entry.short, _head_of, spec_of(entry))]),
    "model": lambda entry: iter([Case(entry.short, lambda spec: factory(spec)(V), model_spec(entry.name))]),
    "init": _inits,
}
"""How the blocks of a family are tried."""


def spec_of(entry: Entry) -> Spec:
    """A block with its defaults; what has none is drawn."""
    return {"name": entry.name, **required(entry)}


def _under(mask: str | Spec, causal: bool, mixer: str | Spec, position: str | Spec | None = None) -> Mixer[Any]:
    return mixer_of(mixer, mask_of(mask, causal), position)


def _with_heads(kind: str, spec: Spec, mask: str, causal: bool, mixer: str) -> Mixer[Any]:
    """Attention with a position, a score or a normaliser."""
    attention = {"name": mixer, **HEADS}
    if kind == "position":
        return _under(mask, causal, attention, spec)
    return _under(mask, causal, {**attention, kind: spec})


def _stack_with(kind: str, causal: bool, spec: Spec, reads: bool = False) -> Any:
    """Two layers that are, or hold, this block."""
    if kind == "layer":
        return _stack({**stack_spec("stack/plain"), "layers": [spec] * 2}, causal, reads)
    part: dict[str, Any] = {"residual": {"name": "residual/pre_norm", "norm": spec}} if kind == "norm" else {kind: spec}
    return stack_of(causal, **{"mask": plain(causal), **part})


def _head_of(spec: Spec) -> nn.Module:
    """A head that stands alone, or one that shares the table of an embedding because it can not."""
    head = factory(spec)(V, D)
    try:
        head.stand_alone()
    except ValueError:
        head.tie(factory("embedding/token")(V, D))
    return head


def built(case: Case, device: torch.device | str = "cpu", **choices: Any) -> Any:
    """What a case tries, in float64 and not training; a mask or an init as it is.

    Every number of a part is moved a little from its start, so that a gate that starts closed hides nothing.
    """
    torch.manual_seed(0)
    block = case.make(**choices)
    if not isinstance(block, nn.Module):
        return block
    block = block.to(device=device, dtype=torch.float64).eval()
    return block if isinstance(block, Model) else stirred(block)
