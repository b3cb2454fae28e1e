"""What every registered name is tried as, so that the laws reach it without a list.

``cases(name)`` builds a block from its defaults in each surrounding that its family can have: a mixer
under masks and positions, a residual rule or a feed-forward inside a small stack, a model whole.
``check(name)`` runs every law on every case.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

import blocks  # noqa: F401  (registers every block)
from blocks.contracts import Attention, AttentionPosition, Mask, Mixer, Model, Site, Stack
from blocks.laws import D, V, laws_of, stirred
from registry import REGISTRY, factory
from registry.core import Entry, Factory

MIXERS = Mixer.families


HEADS = {"n_heads": 4}
"""Few and wide enough for every position."""


class Case(NamedTuple):
    """One surrounding of a block. ``make`` builds it, or refuses with ``ValueError``."""

    label: str
    make: Callable[[], Any]


class Verdict(NamedTuple):
    """What one law says of one case. ``ok`` None: the case is refused, ``says`` is the refusal."""

    law: str
    case: str
    ok: bool | None
    says: str = ""


def small(entry: Entry) -> dict[str, Any]:
    """A spec whose sizes are small enough to matter in a row of a dozen tokens."""
    sizes = {
        key: min(choice.default, 4)
        for key, choice in entry.choices.items()
        if choice.type is int and isinstance(choice.default, int) and not isinstance(choice.default, bool)
    }
    return {"name": entry.name, **sizes}


def mask_of(name: str, causal: bool) -> Mask:
    """The policy called ``name`` with small sizes, in a stack of this direction."""
    return factory(small(REGISTRY[name]), ("mask",))(causal)


def is_attention_position(name: str) -> bool:
    """A position that acts inside attention; the others act at the foot of a stack."""
    return REGISTRY[name].facts[:1] == ("n_heads",)


def mixer_of(
    spec: str | dict[str, Any],
    mask: Mask,
    position: str | None = None,
    shared: Factory[AttentionPosition] | None = None,
) -> Mixer[Any]:
    """A mixer of width ``D`` under ``mask``; ``position`` None is what it prefers."""
    make: Any = factory(spec, MIXERS)
    kind = make.func
    if not issubclass(kind, Attention):
        if position not in (None, "position/none"):
            raise ValueError(f"position must act at the foot of a stack for {kind.__name__}, but got {position}.")
        return make(D, mask)
    name = position or f"position/{kind.prefers['position']}"
    return make(D, mask, shared or factory(name))


def layer_spec(**parts: Any) -> dict[str, Any]:
    """The spec of a plain layer of small parts, with some of them replaced."""
    return {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": 4},
        "mask": "mask/causal",
        "position": "position/rope",
        "ffn": "ffn/mlp",
        "residual": {"name": "residual/pre_norm", "norm": "norm/rms"},
        **parts,
    }


def stack_of(
    causal: bool = True, stack: str = "stack/plain", /, *, foot: tuple[str, ...] = (), **parts: Any
) -> Stack[Any]:
    """A small stack of two layers made of ``parts``, with embedding positions at its foot."""
    spec = {"name": stack, "layers": [layer_spec(**parts)] * 2, "norm": "norm/rms", "position": list(foot)}
    site = Site(causal=causal, max_length=64, n_layers=2, decoder_layers=2)
    return factory(spec, ("stack",))(D, site)


def model_of(name: str = "model/decoder_only", **choices: Any) -> nn.Module:
    """A small model over ``V`` tokens; ``parts`` go to its layers."""
    parts = choices.pop("parts", {})
    entry = REGISTRY[name]
    stacks = {}
    for key, choice in entry.choices.items():
        if "stack" in choice.families:
            causal = key == "decoder"
            mask = {"mask": "mask/causal" if causal else "mask/full"}
            cross = {"cross_attention": "attention/mha"} if causal and "encoder" in entry.choices else {}
            layers = [layer_spec(**{**mask, **cross, **parts})] * 2
            stacks[key] = {"name": "stack/plain", "layers": layers, "norm": "norm/rms"}
    spec = {"name": name, "d_model": D, "max_length": 64, **stacks, **choices}
    return factory(spec, ("model",))(V)


def cases(name: str) -> Iterator[Case]:
    """Every surrounding in which the block called ``name`` is tried."""
    entry = REGISTRY[name]
    kind = entry.family
    ways = {"both ways": False, "causal": True}
    if kind in MIXERS:
        for mask in ("mask/full", "mask/causal", "mask/window"):
            for way, causal in ways.items():
                yield Case(f"{entry.short} {mask} {way}", partial(_under, mask, causal, name))
    elif kind == "mask":
        for way, causal in ways.items():
            yield Case(f"{entry.short} {way}", partial(mask_of, name, causal))
            yield Case(f"mha {entry.short} {way}", partial(_under, name, causal, "attention/mha"))
    elif kind == "position" and is_attention_position(name):
        for way, causal in ways.items():
            mask = "mask/causal" if causal else "mask/full"
            yield Case(f"mha {entry.short} {way}", partial(_under, mask, causal, "attention/mha", name))
        yield Case(f"gqa {entry.short} window", partial(_under, "mask/window", True, "attention/gqa", name))
    elif kind == "position":
        yield Case(entry.short, partial(factory(name), D, 64))
        yield Case(f"stack {entry.short}", partial(stack_of, foot=(name,)))
    elif kind in ("norm", "ffn", "residual", "layer", "stack"):
        if kind in ("norm", "ffn"):
            yield Case(entry.short, partial(factory(name), D))
        if kind == "residual":
            site = Site(causal=True, max_length=64, depth=1, n_layers=3, decoder_layers=3)
            yield Case(entry.short, partial(factory(name), D, site))
        yield from _in_a_stack(entry)
    elif kind == "embedding":
        yield Case(entry.short, partial(factory(name), V, D))
    elif kind == "head":
        yield Case(entry.short, partial(_head_of, name))
    elif kind == "model":
        yield Case(entry.short, partial(model_of, name))
    elif kind == "init":
        yield Case(f"decoder_only {entry.short}", partial(model_of, init=name))


def _under(mask: str, causal: bool, mixer: str, position: str | None = None) -> Mixer[Any]:
    return mixer_of({"name": mixer, **(HEADS if position else {})}, mask_of(mask, causal), position)


def _head_of(name: str) -> nn.Module:
    """A head that stands alone, or one that shares the table of an embedding because it can not."""
    head = factory(name)(V, D)
    try:
        head.stand_alone()
    except ValueError:
        head.tie(factory("embedding/token")(V, D))
    return head


def _in_a_stack(entry: Entry) -> Iterator[Case]:
    kind, name = entry.family, entry.name
    for causal in (False, True):
        parts: dict[str, Any] = {"mask": "mask/causal" if causal else "mask/full"}
        if kind == "norm":
            parts["residual"] = {"name": "residual/pre_norm", "norm": name}
        elif kind == "layer":
            parts["name"] = name
        elif kind != "stack":
            parts[kind] = name
        make = partial(stack_of, causal, name if kind == "stack" else "stack/plain", **parts)
        yield Case(f"stack {entry.short} {'causal' if causal else 'both ways'}", make)


def check(name: str, device: torch.device | str = "cpu") -> Iterator[Verdict]:
    """Every law on every case of a registered name, one verdict each; a refused case has one verdict."""
    for case in cases(name):
        try:
            block = built(case, device)
        except ValueError as refusal:
            yield Verdict("refusal", case.label, None, str(refusal))
            continue
        for law in laws_of(block):
            torch.manual_seed(0)
            try:
                law(block)
                yield Verdict(law.__name__, case.label, True)
            except AssertionError as broken:
                yield Verdict(law.__name__, case.label, False, str(broken))
            except Exception as error:  # a bug in the block: the other laws still have their say
                where = traceback.extract_tb(error.__traceback__)[-1]
                says = f"{type(error).__name__} at {where.filename}:{where.lineno}: {error}"
                yield Verdict(law.__name__, case.label, False, says)


def built(case: Case, device: torch.device | str = "cpu") -> Any:
    """The block of a case, in float64 and not training; a mask as it is.

    Every number of a part is moved a little from its start, so that a gate that starts closed hides nothing.
    """
    torch.manual_seed(0)
    block = case.make()
    if not isinstance(block, nn.Module):
        return block
    block = block.to(device=device, dtype=torch.float64).eval()
    return block if isinstance(block, Model) else stirred(block)
