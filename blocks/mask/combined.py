"""Policies put together: what all of them show, or what any of them shows."""

from __future__ import annotations

import functools

from torch import Tensor

from blocks.contracts import Layout, Mask
from registry import Factory, register


@register("mask/and", policies=["window", "dilated"])
class And(Mask):
    """A token sees what every one of ``policies`` shows it.

    Args:
        policies: The policies, by name.

    Raises:
        ValueError: There is no policy.
    """

    def __init__(self, causal: bool, /, *, policies: list[Factory[Mask]]) -> None:
        self.policies = _build(policies, causal)
        super().__init__(any(p.causal for p in self.policies))
        self.window = min((p.window for p in self.policies if p.window is not None), default=None)

    def sees(self, q: Layout, k: Layout) -> Tensor:
        return functools.reduce(Tensor.logical_and, [_shown(p, q, k) for p in self.policies])


@register("mask/or", policies=["window", "strided"])
class Or(Mask):
    """A token sees what any of ``policies`` shows it.

    Args:
        policies: The policies, by name.

    Raises:
        ValueError: There is no policy.
    """

    def __init__(self, causal: bool, /, *, policies: list[Factory[Mask]]) -> None:
        self.policies = _build(policies, causal)
        super().__init__(all(p.causal for p in self.policies))
        windows = [p.window for p in self.policies]
        self.window = None if None in windows else max(w for w in windows if w is not None)

    def sees(self, q: Layout, k: Layout) -> Tensor:
        return functools.reduce(Tensor.logical_or, [_shown(p, q, k) for p in self.policies])


def _build(policies: list[Factory[Mask]], causal: bool) -> list[Mask]:
    if not policies:
        raise ValueError("policies must name at least one mask, but got none.")
    return [policy(causal) for policy in policies]


def _shown(policy: Mask, q: Layout, k: Layout) -> Tensor:
    """A policy's rule with its own direction, which may be narrower than that of the whole."""
    shown = policy.sees(q, k)
    return shown & (k.position <= q.position) if policy.causal else shown
