"""What combines with what: every mixer under every mask and position, in an encoder, a decoder and across.

Each combination is built, and its refusal is what is shown. What a mixer declares of its lowering is shown where the
work in a long row agrees, and what it does not declare is found out by that work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from blocks.cases import MIXERS, is_attention_position, mask_of, mixer_of
from blocks.contracts import Attention, Mask, Mixer
from blocks.laws.cost import LINEAR, declared_lowering, grows, growth
from registry import REGISTRY
from registry.errors import ConfigError

SLOTS = ("encoder", "decoder", "cross_attention")


class Row(NamedTuple):
    """One combination.

    position: The position inside attention; ``position/none`` for a mixer without heads.
    verdict: "native", "dense" (every pair is computed, and some then hidden), "unknown" or "refused".
    says: How it is computed, or why it is refused.
    """

    slot: str
    mixer: str
    mask: str
    position: str
    verdict: str
    says: str


def rows(mixers: Iterable[str] = ()) -> Iterator[Row]:
    """Every combination of some mixers (all of them) with masks and positions, slot by slot.

    A mixer without heads is tried without a position only: that it takes none inside is said once, by its kind.
    What acts at the foot of a stack combines with every mixer, and is left out.
    """
    positions = [p for p in REGISTRY.names("position") if is_attention_position(p) and p != "position/sum"]
    for slot in SLOTS:
        masks = ["mask/full"] if slot == "cross_attention" else [m for m in REGISTRY.names("mask") if _whole(m)]
        for mixer in mixers or REGISTRY.names(*MIXERS):
            heads = REGISTRY[mixer].family == "attention"
            for mask in masks:
                for position in positions if heads and slot != "cross_attention" else ["position/none"]:
                    yield Row(slot, mixer, mask, position, *judge(slot, mixer, mask, position))


def judge(slot: str, mixer: str, mask: str, position: str) -> tuple[str, str]:
    """The verdict on one combination, and what it says."""
    try:
        block = _built(slot, mixer, mask, position)
    except ValueError as refusal:
        reason = str(refusal)
        return "refused", reason.partition(": ")[2] if isinstance(refusal, ConfigError) else reason
    return lowered(block, lambda: _growth(mixer, mask, block.mask.causal))


def works(slot: str, mixer: str, mask: str) -> bool:
    """The combination can be built, without a position."""
    try:
        _built(slot, mixer, mask, "position/none")
    except ValueError:
        return False
    return True


def lowered(block: Mixer[Any], growth: Callable[[], float]) -> tuple[str, str]:
    """How a mixer reads long rows under its mask: the verdict, and why.

    Args:
        block: The mixer. What it declares is shown, unless it declares to be spared pairs and is not.
        growth: How much more work twice the tokens are; less than ``LINEAR`` where hidden pairs are spared.
    """
    declared, plain = declared_lowering(block), block.mask.plain
    if declared is not None and (plain or not declared.startswith("native")):
        return ("native" if declared.startswith("native") else "dense"), declared
    if plain and not block.mask.causal:
        return "native", "everything is seen"
    try:
        more = growth()
    except (RuntimeError, NotImplementedError) as error:
        return "unknown", f"its work can not be counted without numbers: {str(error).partition(chr(10))[0]}"
    if more < LINEAR:
        return "native", declared or f"twice the tokens are {more:.1f} times the work"
    if plain:
        return "unknown", "every pair is counted, and its kernel may or may not spare the hidden half"
    return "dense", f"every pair is computed: twice the tokens are {more:.1f} times the work"


@functools.cache
def _growth(mixer: str, mask: str, causal: bool) -> float:
    """How the work grows, whatever the position."""
    return growth(mixer_of(mixer, mask_of(mask, causal), "position/none"))


def _built(slot: str, mixer: str, mask: str, position: str) -> Mixer[Any]:
    """The combination, if it does what its slot asks for; else raises ``ValueError``."""
    policy = Mask(False) if slot == "cross_attention" else mask_of(mask, slot == "decoder")
    if slot == "decoder" and not policy.causal:
        raise ValueError(f"mask must hide the future in a decoder, but got {mask}.")
    block = mixer_of(mixer, policy, position)
    if slot == "cross_attention":
        if not isinstance(block, Attention):
            raise ValueError("cross_attention must be an attention, which can read a memory, but got another mixer.")
        block.empty_state(1, 0)
    elif slot == "decoder":
        block.empty_state(1, 4)
    return block


def abilities(name: str) -> list[str]:
    """What a mixer can do, in words, tried on a small one."""
    able = []
    names = {"decoder": "causal", "encoder": "both ways", "cross_attention": "reads a memory"}
    for slot, words in names.items():
        mask = "mask/causal" if slot == "decoder" else "mask/full"
        if works(slot, name, mask):
            able.append(words)
    sparse = [m for m in REGISTRY.names("mask") if _whole(m) and m not in ("mask/full", "mask/causal")]
    if any(works("decoder", name, m) for m in sparse):
        able.append("any mask")
    if "causal" in able:
        able.append("state grows" if grows(mixer_of(name, Mask(True), "position/none")) else "constant state")
    return able


def _whole(mask: str) -> bool:
    """It can be chosen by name alone, without parts."""
    return all(c.default != "???" for c in REGISTRY[mask].choices.values())
