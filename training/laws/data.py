"""Laws of data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch

from blocks.contracts import IGNORE
from blocks.laws import Broken, hold
from training.batch import Batch
from training.contracts import Data
from training.laws.objectives import tensors

FEW = 3
"""How many batches are compared where a few will do."""

MOST = 100
"""How many batches of an epoch are read at most."""

GRAM = 12
"""How many tokens in a row count as the same text."""

KEYS = ("fingerprint", "train_tokens", "val_tokens", "train_bytes", "val_bytes", "bytes_per_token", "unigram_entropy")


class Source(NamedTuple):
    """Data that can be made again: ``make(seed)`` builds it with that seed, and sets it up."""

    make: Callable[[int], Data]


def depends_on_its_seed_alone(source: Source) -> None:
    """Batches are a function of seed, epoch and index: no other generator, and no reading before, changes them."""
    first, again, other = (_made(source, seed, noise) for noise, seed in enumerate((0, 0, 1)))
    batches = [list(islice(data.train_dataloader(), FEW)) for data in (first, again, other)]
    hold(batches[0], "there must be a batch for training, but there is none.")
    _alike(batches[0], batches[1], "training batches of one seed")
    same = all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches[0], batches[2], strict=False))
    hold(not same, "another seed must give other training batches, but gives the same.")
    validations = [list(islice(data.val_dataloader(), FEW)) for data in (first, again, other)]
    hold(validations[0], "there must be a batch for validation, but there is none.")
    _alike(validations[0], validations[1], "validation batches")
    _alike(validations[0], validations[2], "validation batches under another seed")
    _alike(validations[0], list(islice(first.val_dataloader(), FEW)), "validation batches that are read again")


def draws_every_epoch_anew(source: Source) -> None:
    """The second epoch has other batches than the first, or another order."""
    loader = _made(source, 0).train_dataloader()
    if len(loader) > MOST:
        return  # too long to read here; ``resumes_anywhere`` holds of any epoch
    first, second = list(loader), list(islice(loader, FEW))
    same = all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=False))
    hold(not same, "a second epoch must have another order than the first, but begins with the same batches.")


def resumes_anywhere(source: Source) -> None:
    """A loader that took up the state of another gives the batches that follow."""
    loader = _made(source, 0).train_dataloader()
    hold(hasattr(loader, "state_dict"), "a training loader must have a state_dict, so that a run can be taken up.")
    given = iter(loader)
    read = min(2, len(loader))
    for _ in range(read):
        next(given)
    state = json.loads(json.dumps(loader.state_dict()))
    following = next(given, None) or next(iter(loader))
    other = _made(source, 0).train_dataloader()
    other.load_state_dict(state)
    _alike([following], [next(iter(other))], f"the batch after {read}")


def keeps_validation_apart(source: Source) -> None:
    """What is validated on is not trained on."""
    data = _made(source, 0)
    seen = {gram for batch in islice(data.train_dataloader(), MOST) for gram in _grams(batch)}
    held = [gram for batch in islice(data.val_dataloader(), MOST) for gram in _grams(batch)]
    share = sum(gram in seen for gram in held) / max(1, len(held))
    hold(share < 0.5, f"validation must be of data that is not trained on, but {share:.0%} of its text is in training.")


def gives_what_a_model_takes(source: Source) -> None:
    """Ids of the vocabulary in rows of at most ``max_length``; trees where they are declared, and only there."""
    data = _made(source, 0)
    for batch in [*islice(data.train_dataloader(), FEW), *islice(data.val_dataloader(), FEW)]:
        for ids in (batch.tokens, batch.source):
            if ids is None:
                continue
            hold(ids.shape[1] <= data.max_length, f"rows must have at most {data.max_length} tokens: {ids.shape[1]}.")
            inside = ids.min() >= 0 and ids.max() < data.vocab_size
            hold(inside, f"ids must be below vocab_size {data.vocab_size}, but reach from {ids.min()} to {ids.max()}.")
        hold((batch.targets != IGNORE).any(), "something must be asked in every batch, but in one nothing is.")
        trees = batch.layout.heads is not None
        hold(trees == (data.trees != "none"), f"trees are declared as {data.trees!r}, but the batches differ.")


def states_its_facts(source: Source) -> None:
    """The facts are plain, agree with one another, and say the same whatever the seed."""
    data, other = _made(source, 0), _made(source, 1)
    facts = data.facts
    missing = [key for key in (*KEYS, "source") if key not in facts]
    hold(not missing, f"facts must hold {', '.join((*KEYS, 'source'))}, but lack {', '.join(missing)}.")
    try:
        hold(json.loads(json.dumps(facts)) == facts, "facts must survive JSON unchanged, but do not.")
    except TypeError as error:
        raise Broken(f"facts must be plain, but JSON cannot hold them: {error}.") from error
    hold(other.facts["fingerprint"] == facts["fingerprint"], "the seed must not change the fingerprint, but does.")
    digits = isinstance(facts["fingerprint"], str) and set(facts["fingerprint"]) <= set("0123456789abcdef")
    hold(digits and facts["fingerprint"], f"fingerprint must be a hex digest, but is {facts['fingerprint']!r}.")
    for key in ("train_tokens", "val_tokens"):
        hold(isinstance(facts[key], int) and facts[key] > 0, f"{key} must be a positive count, but is {facts[key]!r}.")
    ratio = facts["val_bytes"] / facts["val_tokens"]
    off = abs(facts["bytes_per_token"] - ratio)
    hold(
        off < 1e-6,
        f"bytes_per_token must be val_bytes / val_tokens = {ratio:.6f}, but is {facts['bytes_per_token']:.6f}.",
    )
    most = float(np.log(data.vocab_size)) + 0.5  # counts plus one, of other text than is coded
    entropy = facts["unigram_entropy"]
    hold(0 < entropy <= most, f"unigram_entropy must be above 0 and at most ln V, {most:.2f}, but is {entropy}.")


def shows_samples(source: Source) -> None:
    """Prompts are texts, the same each time."""
    data = _made(source, 0)
    prompts, again = (list(islice(data.samples(), FEW)) for _ in range(2))
    hold(prompts and all(isinstance(prompt, str) for prompt in prompts), f"samples must be texts, but are {prompts}.")
    hold(prompts == again, "samples must be the same each time, but differ.")


def _made(source: Source, seed: int, noise: int = 0) -> Data:
    torch.manual_seed(noise)
    np.random.seed(noise)
    return source.make(seed)


def _alike(some: list[Batch], others: list[Batch], what: str) -> None:
    hold(len(some) == len(others), f"{what}: must be equally many, but are {len(some)} and {len(others)}.")
    for number, (one, other) in enumerate(zip(some, others, strict=True)):
        pairs: list[tuple[Any, Any]] = list(zip(tensors(one), tensors(other), strict=True))
        same = all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs) and one.step_seed == other.step_seed
        hold(same, f"{what}: must be the same, but batch {number} differs.")


def _grams(batch: Batch) -> Iterator[tuple[int, ...]]:
    """Every dozen of real tokens in a row of what is read."""
    ids, layout = (batch.tokens, batch.layout) if batch.source is None else (batch.source, batch.source_layout)
    assert layout is not None
    for row, real in zip(ids.tolist(), layout.real.tolist(), strict=True):
        text = [token for token, there in zip(row, real, strict=True) if there]
        size = min(GRAM, len(text))
        for at in range(len(text) - size + 1):
            yield tuple(text[at : at + size])
