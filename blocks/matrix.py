"""What combines with what: every mixer under every mask and position, in an encoder, a decoder and across.

Nothing here is declared: each combination is built, and what it says is what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from blocks.cases import MIXERS, is_attention_position, mask_of, mixer_of
from blocks.contracts import Attention, Mask, Mixer
from registry import REGISTRY
from registry.errors import ConfigError

SLOTS = ("encoder", "decoder", "cross_attention")


class Row(NamedTuple):
    """One combination.

    position: The position inside attention; ``position/none`` for a mixer without heads.
    verdict: "native", "dense" (every pair is computed, and some then hidden) or "refused".
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
        policy = Mask(False) if slot == "cross_attention" else mask_of(mask, slot == "decoder")
        if slot == "decoder" and not policy.causal:
            raise ValueError(f"mask must hide the future in a decoder, but got {mask}.")
        block = mixer_of(mixer, policy, position)
        if slot == "cross_attention":
            if not isinstance(block, Attention):
                raise ValueError(
                    "cross_attention must be an attention, which can read a memory, but got another mixer."
                )
            block.empty_state(1, 0)
        elif slot == "decoder":
            block.empty_state(1, 4)
    except ValueError as refusal:
        reason = str(refusal)
        return "refused", reason.partition(": ")[2] if isinstance(refusal, ConfigError) else reason
    says = str(getattr(block, "lowering", lambda: "native")())
    return ("native" if says.startswith("native") else "dense"), says


def abilities(name: str) -> list[str]:
    """What a mixer can do, in words, tried on a small one."""
    able = []
    names = {"decoder": "causal", "encoder": "both ways", "cross_attention": "reads a memory"}
    for slot, words in names.items():
        mask = "mask/causal" if slot == "decoder" else "mask/full"
        if judge(slot, name, mask, "position/none")[0] != "refused":
            able.append(words)
    sparse = [m for m in REGISTRY.names("mask") if _whole(m) and m not in ("mask/full", "mask/causal")]
    if any(judge("decoder", name, m, "position/none")[0] != "refused" for m in sparse):
        able.append("any mask")
    if "causal" in able:
        block: Mixer[Any] = mixer_of(name, Mask(True), "position/none")
        grows = block.empty_state(1, 64).bytes() < block.empty_state(1, 128).bytes()
        able.append("state grows" if grows else "constant state")
    return able


def _whole(mask: str) -> bool:
    """It can be chosen by name alone, without parts."""
    return all(c.default != "???" for c in REGISTRY[mask].choices.values())
