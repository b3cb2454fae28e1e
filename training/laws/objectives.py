"""Laws of objectives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.contracts import IGNORE, Layout
from blocks.laws import EXACT, hold
from blocks.laws.specs import model_spec
from registry import factory
from training.batch import Batch
from training.contracts import Example, Objective
from training.laws.trying import examples

DRAWS = 8
"""With how many draws an objective that hides tokens at random is tried."""


def makes_batches(objective: Objective) -> None:
    """Ids of the vocabulary in rows that the model takes; something is asked, and nothing of padding."""
    batch = batch_of(objective, examples(objective))
    tokenizer, reads = objective.tokenizer, objective.shape == "encoder_decoder"
    hold(
        (batch.source is not None) == reads, "a batch must have a source exactly where the model has an encoder for it."
    )
    for what, ids, layout in _sequences(batch):
        hold(
            ids.ndim == 2 and ids.dtype == torch.int64,
            f"{what} must be int64 (B, T), but are {ids.dtype} {ids.ndim}-d.",
        )
        hold(ids.shape == layout.position.shape, f"the layout of {what} must fit them, but does not.")
        longest = objective.max_length
        hold(ids.shape[1] <= longest, f"{what} must have at most {longest} tokens, but have {ids.shape[1]}.")
        inside = ids.min() >= 0 and ids.max() < tokenizer.vocab_size
        hold(inside, f"{what} must be ids below {tokenizer.vocab_size}, but reach from {ids.min()} to {ids.max()}.")
    asked = batch.targets != IGNORE
    hold(asked.any(), "something must be asked of a batch, but every target is ignored.")
    if objective.asks == "token":
        same = batch.targets.shape == batch.tokens.shape
        hold(same, f"targets must have the shape of the tokens, but have {tuple(batch.targets.shape)}.")
        known = batch.targets[asked]
        inside = known.min() >= 0 and known.max() < tokenizer.vocab_size
        hold(inside, "targets must be ids of the vocabulary or ignored, but some are neither.")
        hold(not (asked & ~batch.layout.real).any(), "nothing must be asked of padding, but something is.")


def draws_from_its_generator(objective: Objective) -> None:
    """One state of ``rng`` gives one batch, whatever other generators there are."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        made.append(batch_of(objective, examples(objective), seed=5))
    for one, other in zip(tensors(made[0]), tensors(made[1]), strict=True):
        hold(torch.equal(one, other), "one generator must give one batch, but two batches differ.")


def hides_its_answers(objective: Objective) -> None:
    """What is asked of a place cannot be read where that place can see.

    A token of an example is replaced by another. Where that changes a target, nothing that its place sees may change:
    the tokens up to it (all of its row, in an encoder) of its own document, and the source. The share of tokens that
    are shown all the same must be the one that the objective declares as ``shown``.
    """
    if objective.asks != "token":
        return
    asked = leaked = 0
    first = None
    for (before, after), _ in _replacements(objective, documents=False):
        changed = (before.targets != after.targets) & (before.targets != IGNORE) & (after.targets != IGNORE)
        for row, at in changed.nonzero().tolist():
            asked += 1
            if _visible_change(objective, before, after, row, at):
                leaked += 1
                first = first or (row, at)
    hold(asked, "replacing tokens of the examples must change some target, but changes none.")
    share, shown = leaked / asked, objective.shown
    slack = 4 * math.sqrt(shown * (1 - shown) / asked)
    place = f" (the first: row {first[0]}, token {first[1]})" if first else ""
    hold(
        share <= shown + slack,
        f"what is asked must not be seen where it is asked, but {share:.0%} of the answers are{place}; "
        f"declared as shown are {shown:.0%}.",
    )


def keeps_documents_apart(objective: Objective) -> None:
    """In a window of several documents a token is asked for what stands in its own."""
    if objective.asks != "token" or objective.gives != "text" or not objective.packs:
        return
    for (before, after), document in _replacements(objective, documents=True):
        changed = (before.targets != after.targets) & (before.targets != IGNORE) & (after.targets != IGNORE)
        wrong = changed & (before.layout.document != document)
        hold(
            not wrong.any(), "a token must be asked for its own document, but one is asked for what stands in another."
        )


def averages_over_its_targets(objective: Objective) -> None:
    """The loss is a finite scalar with its nats beside it, and a row whose targets are ignored does not count."""
    if objective.asks != "token":
        return
    torch.manual_seed(0)
    name = "model/encoder_only" if objective.shape == "encoder" else f"model/{objective.shape}"
    name = "model/decoder_only" if objective.shape == "decoder" else name
    model = factory(model_spec(name))(objective.tokenizer.vocab_size).double().eval()
    two = batch_of(objective, examples(objective, rows=2))
    ignored = two._replace(targets=torch.stack([two.targets[0], torch.full_like(two.targets[1], IGNORE)]))
    if not (ignored.targets != IGNORE).any():
        return
    loss, log = objective.loss(model, ignored)
    hold(loss.ndim == 0 and loss.isfinite(), "the loss must be a finite scalar, but is not.")
    hold("nats" in log, f"the log must hold 'nats', but holds {', '.join(log) or 'nothing'}.")
    loss.backward()
    reached = any(p.grad is not None and p.grad.any() for p in model.parameters())
    hold(reached, "the loss must reach the parameters, but none gets a gradient.")
    alone = objective.loss(model, _rows(ignored, 1))[0]
    off = (loss - alone).abs().item()
    hold(off <= EXACT, f"a row whose targets are all ignored must not change the loss, but changes it by {off:.2e}.")


def prompts_or_refuses(objective: Objective) -> None:
    """A prompt is made of ids of the vocabulary, or refused with a sentence."""
    try:
        prompt = objective.prompt("one two")
    except ValueError as refusal:
        hold(str(refusal).endswith("."), f"a refusal must be a sentence, but is {str(refusal)!r}.")
        return
    for ids in (prompt.tokens, prompt.source):
        inside = ids is None or not len(ids) or (ids.min() >= 0 and ids.max() < objective.tokenizer.vocab_size)
        hold(inside, "a prompt must be of ids of the vocabulary, but is not.")


def batch_of(objective: Objective, given: list[Example], seed: int = 0) -> Batch:
    return objective.batch(given, np.random.default_rng(seed))


def _replacements(objective: Objective, documents: bool) -> Iterator[tuple[tuple[Batch, Batch], int]]:
    """Batches before and after one token of an example is replaced, and the document that this token is in."""
    text = objective.tokenizer.text_ids
    for seed in range(DRAWS):
        given = examples(objective, rows=2, seed=seed, documents=documents)
        before = batch_of(objective, given, seed)
        tokens = given[0].tokens
        for place in range(len(tokens)):
            other = tokens.copy()
            other[place] = text.start + (tokens[place] - text.start + 1 + seed) % len(text)
            after = batch_of(objective, [given[0]._replace(tokens=other), *given[1:]], seed)
            if after.targets.shape == before.targets.shape and after.tokens.shape == before.tokens.shape:
                document = given[0].document
                yield (before, after), 0 if document is None else int(document[place])


def _visible_change(objective: Objective, before: Batch, after: Batch, row: int, at: int) -> bool:
    """Whether what a place of a row sees differs between two batches."""
    same = before.layout.document[row] == before.layout.document[row, at]
    if objective.shape != "encoder":
        same = same & (torch.arange(before.tokens.shape[1]) <= at)
    if (before.tokens[row] != after.tokens[row])[same].any():
        return True
    if before.source is None or after.source is None:
        return False
    return before.source.shape != after.source.shape or bool((before.source[row] != after.source[row]).any())


def _sequences(batch: Batch) -> Iterator[tuple[str, Tensor, Layout]]:
    yield "tokens", batch.tokens, batch.layout
    if batch.source is not None and batch.source_layout is not None:
        yield "sources", batch.source, batch.source_layout


def tensors(batch: Batch) -> list[Tensor]:
    """All that a batch holds."""
    found: list[Any] = []
    for value in batch:
        found += list(value) if isinstance(value, Layout) else [value]
    return [value for value in found if isinstance(value, Tensor)]


def _rows(batch: Batch, n: int) -> Batch:
    """The first rows of a batch."""

    def cut(layout: Layout | None) -> Layout | None:
        if layout is None:
            return None
        heads = None if layout.heads is None else layout.heads[:n]
        return Layout(layout.position[:n], layout.document[:n], layout.dense, heads)

    source = None if batch.source is None else batch.source[:n]
    layout = cut(batch.layout)
    assert layout is not None
    return Batch(batch.tokens[:n], batch.targets[:n], layout, source, cut(batch.source_layout))
