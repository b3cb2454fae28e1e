"""Every choice of a block has an effect: another value changes parameters, outputs, training or cost somewhere.

A choice is tried with other values (``registry.others``) in every case of its block, first with the other choices as
they are in the case, then with some of them made as well: what acts only beside another choice acts then. Trying ends
with the first effect. A choice that changes no number by its nature declares that with ``registry.SameNumbers``.
"""

from __future__ import annotations

import copy
import functools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blocks.cases import Case, Spec, built
from blocks.contracts import (
    Attention,
    Embedding,
    EmbeddingPosition,
    Ffn,
    Head,
    Layer,
    Layout,
    Mask,
    Memory,
    Mixer,
    Model,
    Norm,
    Normaliser,
    Residual,
    Score,
    Stack,
)
from blocks.laws.faults import FAULTS, fault, file_of
from blocks.laws.models import given
from blocks.laws.trying import B, D, T, V, beside, draw, full, tree, with_padding
from blocks.laws.weighing import H, K
from registry import REGISTRY
from registry.core import MISSING, Choice
from registry.others import is_text, others, some

LONG = 150
"""Tokens of a row in which a mask or a table of a usual size ends."""

DRAWS, CONTEXTS = 400, 16
"""With how many draws of its other choices a choice is tried that has shown no effect without: in all, and of those
that its block does not refuse."""

VALUES = 12, 4
"""How many values of a choice are tried: as the case has the other choices, and beside each draw of them."""

TOLERANCE = 1e-13
"""Largest difference, relative to the largest value, between two runs of one computation in float64."""

ALONE = (
    "another value changes nothing while the other choices are at their defaults, and is not refused there; it acts "
    "beside others only"
)

Cases = Callable[[str], Iterable[Case]]
Observations = Iterator[tuple[str, Callable[[], Any]]]
Observe = Callable[[Any], Observations]


class Effect(NamedTuple):
    """What another value of a choice does.

    alone: The first difference where the other choices are as the cases have them. None: there is none.
    beside: The first difference beside other choices, looked for where it has none alone.
    refused: Alone, every other value that was drawn is refused: it is read.
    """

    alone: str | None
    beside: str | None = None
    refused: bool = False


def silent(name: str, cases: Cases, observe: Observe) -> Iterator[tuple[str, str]]:
    """The choices of a name that were seen to change nothing, or that end in an error, each with a sentence.

    Args:
        name: What is tried.
        cases: Where.
        observe: What is compared, in the order in which it is looked at.
    """
    for key, choice in REGISTRY[name].choices.items():
        if choice.same_numbers:
            continue
        try:
            seen = effect(name, key, cases, observe)
        except FAULTS as error:  # a bug in the block: the other choices are still tried
            yield key, fault(error, file_of(REGISTRY[name].constructor))
            continue
        if seen.alone is not None or (seen.refused and others(choice)):
            continue
        if seen.beside is None:
            yield key, _says(choice)
        else:
            yield key, f"{ALONE} ({seen.beside}). Refuse it where it does nothing."


def effect(name: str, key: str, cases: Cases, observe: Observe) -> Effect:
    """What the values of a choice were seen to change."""
    entry = REGISTRY[name]
    choice, dice = entry.choices[key], random.Random(f"{name} {key}")
    surroundings = [case for case in cases(name) if case.laws is None]
    refused = True
    for case in surroundings:
        several, found = _compare(case, choice, {}, observe, VALUES[0])
        if found is not None:
            return Effect(found)
        refused = refused and not several
    if refused and is_text(choice.type):
        return Effect(None, None, refused)
    tried = 0
    for _ in range(DRAWS if len(entry.choices) > 1 and others(choice) else 0):
        case = dice.choice(surroundings)
        parts = (k for k in case.spec if k in entry.choices and entry.choices[k].families)
        made = some(entry, dice, dice.choice((0.2, 0.5)), keep=(key, *parts))
        several, found = _compare(case, choice, made, observe, VALUES[1])
        if found is not None:
            return Effect(None, found, refused)
        tried += several
        if tried == CONTEXTS:
            break
    return Effect(None, None, refused)


def _compare(case: Case, choice: Choice, made: Spec, observe: Observe, most: int) -> tuple[bool, str | None]:
    """Whether a case takes several values of a choice, and the first difference between them."""
    now = case.spec.get(choice.name, choice.default)
    first, several = None, False
    for value in [now, *others(choice, now)][:most]:
        if value == MISSING or (then := _seen(case, {**made, choice.name: value}, observe)) is None:
            continue
        if first is None:
            first = then
            continue
        several = True
        if (what := first.differs(then)) is not None:
            return True, f"{case.label}: {choice.name}={_short(value)} changes {what}"
    return several, None


def _short(value: Any) -> Any:
    return value["name"] if isinstance(value, dict) and "name" in value else value


def _says(choice: Choice) -> str:
    if not others(choice):
        return "no other value can be drawn from its annotation, so that no effect was seen. Annotate what it may be."
    return (
        "no other value changes parameters, outputs, training or cost in any case tried. Remove it, refuse it where it "
        "does nothing, or declare why with Annotated[..., SameNumbers(...)]."
    )


class Seen:
    """What is seen of one build, each thing looked at once, when it is needed."""

    def __init__(self, observations: Observations) -> None:
        self._left = observations
        self._made: list[tuple[str, Any]] = []

    def __getitem__(self, number: int) -> tuple[str, Any] | None:
        while len(self._made) <= number:
            if (following := next(self._left, None)) is None:
                return None
            what, look = following
            torch.manual_seed(0)
            try:
                self._made.append((what, look()))
            except ValueError:  # what a block refuses when it is used
                self._made.append((what, "refused"))
        return self._made[number]

    def differs(self, other: Seen) -> str | None:
        """The first thing in which two builds differ."""
        number = 0
        while (mine := self[number]) is not None:
            theirs = other[number]
            if theirs is None or theirs[0] != mine[0] or _differ(mine[1], theirs[1]):
                return mine[0]
            number += 1
        return None if other[number] is None else "what it is"


def _seen(case: Case, made: Spec, observe: Observe) -> Seen | None:
    """What a case comes to; None where it is refused."""
    try:
        return Seen(observe(built(case, **made)))
    except ValueError:
        return None


def _differ(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return True
        if not a.is_floating_point():
            return not torch.equal(a, b)
        a, b = a.detach().double().nan_to_num(1e9), b.detach().double().nan_to_num(1e9)
        return a.numel() > 0 and bool((a - b).abs().max() > TOLERANCE * max(1.0, a.abs().max().item()))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() != b.keys() or any(_differ(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) != len(b) or any(map(_differ, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return False
    return type(a) is not type(b) or bool(a != b)


# What is looked at -------------------------------------------------------------------------------------------------


def observe(block: Any) -> Observations:
    """What can be seen of a block from outside: the cheapest first."""
    if isinstance(block, nn.Module):
        yield "its parameters", lambda: {name: tuple(p.shape) for name, p in block.named_parameters()}
        yield "its start", lambda: dict(block.state_dict(keep_vars=True))
        yield "its buffers", lambda: dict(block.named_buffers())
    if hasattr(block, "cost"):
        yield "its cost", lambda: [tuple(block.cost(length)) for length in (16, LONG)]
    look = next((look for kind, look in LOOKS if isinstance(block, kind)), None)
    if look is not None:
        yield from look(block)


def _mixer(mixer: Mixer[Any]) -> Observations:
    x, layout = draw(mixer, B, T, D), full(mixer)
    far = draw(mixer, 2, LONG, D, seed=1)
    yield from _runs(mixer, lambda x, layout: mixer(x, layout)[0], x, layout)
    yield "its output on a long row", lambda: mixer(far, full(mixer, 2, LONG))[0]
    yield "its state", lambda: [mixer.empty_state(1, length).bytes() for length in (0, 16, LONG)]
    yield (
        "its steps",
        lambda: mixer(x[:, -1:], layout.slice(T - 1, T), mixer(x, layout, mixer.empty_state(B, T + 1))[1])[0],
    )
    if isinstance(mixer, Attention) and not isinstance(mixer, Layer | Stack):
        memory = Memory(far[:, :9].repeat(2, 1, 1)[:B], full(mixer, B, 9))
        yield "what it reads in a memory", lambda: mixer(x, layout, None, memory)[0]
    yield "its output in bfloat16", lambda: copy.deepcopy(mixer).bfloat16()(x.bfloat16(), layout)[0]


def _ffn(ffn: Ffn) -> Observations:
    x, layout = draw(ffn, B, T, D), full(ffn)
    yield from _runs(ffn, lambda x, layout: ffn(x, layout)[0], x, layout)
    yield "its output on a long row", lambda: ffn(draw(ffn, 2, LONG, D, seed=1), full(ffn, 2, LONG))[0]
    yield (
        "its steps",
        lambda: ffn(x[:, 1:], layout.slice(1, T), ffn(x[:, :1], layout.slice(0, 1), ffn.empty_state(B))[1])[0],
    )


def _norm(norm: Norm) -> Observations:
    yield from _runs(norm, lambda x, layout: norm(x), draw(norm, B, T, D), full(norm))
    for size in (1e-4, 1e4):
        yield f"its output of tokens of size {size:g}", functools.partial(norm, size * draw(norm, B, T, D))


def _residual(residual: Residual) -> Observations:
    shape = (B, T, D) if residual.streams == 1 else (B, T, residual.streams, D)
    y = draw(residual, B, T, D, seed=1)
    yield "its facts", lambda: [residual.final_norm, residual.gain, residual.streams]
    yield "what a sublayer sees", lambda: residual.read(draw(residual, *shape))
    yield from _runs(residual, lambda x, layout: residual.write(x, y), draw(residual, *shape), full(residual))
    yield "what is drawn while training", lambda: [residual.train().write(draw(residual, *shape), y) for _ in range(8)]


def _position(position: EmbeddingPosition) -> Observations:
    yield from _runs(position, position.embed, draw(position, B, T, D), full(position))
    yield "its output on a long row", lambda: position.embed(draw(position, 1, 60, D), full(position, 1, 60))


def _score(score: Score) -> Observations:
    def scores(x: Tensor, layout: Layout) -> Tensor:
        q, k = (score.prepare(x, role, lambda one: one * turned) for role in ("query", "key"))
        products = torch.einsum("bthk,bshk->bhts", q, k) * score.scale
        return products if score.cap is None else score.cap * torch.tanh(products / score.cap)

    turned = draw(score, K, seed=1)
    yield from _runs(score, scores, draw(score, B, T, H, K), full(score))


def _normaliser(normaliser: Normaliser) -> Observations:
    allowed = draw(normaliser, B, 1, T, LONG, seed=1) > -0.5
    yield "what its weights add up to", lambda: normaliser.total
    for which in (None, allowed):
        call = functools.partial(_weights, normaliser, which)
        yield from _runs(normaliser, call, draw(normaliser, B, H, T, LONG), full(normaliser))


def _weights(normaliser: Normaliser, allowed: Tensor | None, scores: Tensor, layout: Layout) -> Tensor:
    return normaliser(scores, allowed)


def _head(head: Head) -> Observations:
    layout = with_padding(full(head, B, T - 3), 1, 2)
    yield from _runs(head, head.forward, draw(head, B, T, D), layout)


def _embedding(embedding: Embedding) -> Observations:
    tokens, layout = torch.arange(V)[None], Layout.full(1, V)
    yield "its output", lambda: embedding(tokens, layout)
    yield "its scores", lambda: embedding.unembed(draw(embedding, 1, T, D))
    yield "its output while training", lambda: embedding.train()(tokens, layout)


def _model(model: Model) -> Observations:
    for length in (T, LONG):
        tokens = torch.randint(0, V, (2, length), generator=torch.Generator().manual_seed(length))
        yield f"its logits for {length} tokens", functools.partial(_logits, model, tokens, False)
        yield f"its training on {length} tokens", functools.partial(_logits, model, tokens, True)


def _logits(model: Model, tokens: Tensor, training: bool) -> Tensor:
    model = copy.deepcopy(model).train(training)
    return model(tokens, *given(model, tokens))[0]


def _mask(mask: Mask) -> Observations:
    layout = Layout.full(1, LONG)._replace(heads=tree(1, LONG, "cpu"))
    yield "its facts", lambda: [mask.causal, mask.window]
    yield "who sees whom", lambda: mask(layout, layout)
    far = layout.slice(40, 60)
    yield "who sees whom in documents", lambda: mask(beside(layout, far), beside(layout, far))


def _runs(block: nn.Module, call: Callable[[Tensor, Layout], Tensor], x: Tensor, layout: Layout) -> Observations:
    """Outputs, the steps of training, and what padding and packing change."""
    yield "its output", lambda: call(x, layout)
    yield "its training", lambda: _trained(block, call, x, layout)
    yield "its output beside padding", lambda: call(x, with_padding(layout.slice(2, T - 2), 1, 3))
    yield "its output in packed rows", lambda: call(x, beside(layout.slice(0, 5), layout.slice(0, T - 5)))


def _trained(block: nn.Module, call: Callable[[Tensor, Layout], Tensor], x: Tensor, layout: Layout) -> list[Any]:
    """Output, gradients, losses that are reported, and how often each part runs, in a step of training."""
    block, calls = block.train(), [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    hooks = [part.register_forward_hook(count) for part in block.modules()]
    try:
        x, layout = x.clone().requires_grad_(), layout.fresh()
        y = call(x, layout)
        assert layout.scratch is not None
        losses = {name: sum(one) for name, one in layout.scratch.losses.items()}
        (y * draw(block, *y.shape, seed=1)).sum().backward()
        gradients = {name: p.grad.clone() for name, p in block.named_parameters() if p.grad is not None}
        return [y, x.grad, gradients, losses, calls[0]]
    finally:
        for hook in hooks:
            hook.remove()
        block.zero_grad(set_to_none=True)
        block.eval()


LOOKS: list[tuple[type, Callable[[Any], Observations]]] = [
    (Mixer, _mixer),
    (Ffn, _ffn),
    (Norm, _norm),
    (Residual, _residual),
    (EmbeddingPosition, _position),
    (Score, _score),
    (Normaliser, _normaliser),
    (Head, _head),
    (Embedding, _embedding),
    (Model, _model),
    (Mask, _mask),
]
