"""Laws of tokenizers."""

from __future__ import annotations

import copy
import json

import numpy as np

from blocks.laws import Broken, hold
from training.contracts import Tokenizer
from training.laws.trying import LEARNED, UNSEEN, trained


def says_text_back(tokenizer: Tokenizer) -> None:
    """What was encoded is decoded to the same text; what cannot be said is refused, but not what was learned from."""
    tokenizer = trained(copy.deepcopy(tokenizer))
    for text in (*LEARNED, *UNSEEN):
        ids = _encoded(tokenizer, text)
        if ids is None:
            hold(text not in LEARNED, f"a text that was learned from must be encoded, but {text!r} is refused.")
            continue
        back = tokenizer.decode(ids.tolist())
        hold(back == text, f"a text must come back as it was, but {text!r} comes back as {back!r}.")


def keeps_ids_in_range(tokenizer: Tokenizer) -> None:
    """Ids of text, special ids and sentinels have places of their own below ``vocab_size``; only text is decoded."""
    tokenizer = trained(copy.deepcopy(tokenizer))
    tokenizer.reserve(3)
    text, special = tokenizer.text_ids, [tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.mask]
    sentinels = list(tokenizer.sentinels)
    hold(len(sentinels) == 3, f"three sentinels were reserved, but there are {len(sentinels)}.")
    every = [*special, *text, *sentinels]
    hold(
        len(set(every)) == len(every), "special ids, ids of text and sentinels must all differ, but some are the same."
    )
    size = tokenizer.vocab_size
    hold(min(every) >= 0 and max(every) < size, f"every id must be from 0 to {size - 1}, but they reach {max(every)}.")
    for sentence in (*LEARNED, *UNSEEN):
        if (ids := _encoded(tokenizer, sentence)) is None:
            continue
        whole = isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu"
        hold(whole, f"ids must be a row of whole numbers, but of {sentence!r} they are {ids!r}.")
        outside = [int(i) for i in ids if i not in text]
        hold(not outside, f"text must be encoded in text_ids ({text}), but {sentence!r} has {outside[:3]}.")
    between = [
        tokenizer.bos,
        *tokenizer.encode("one").tolist(),
        tokenizer.eos,
        *sentinels,
        tokenizer.pad,
        tokenizer.mask,
    ]
    said = tokenizer.decode(between)
    hold(said == "one", f"special ids must be left out of a text, but 'one' among them comes back as {said!r}.")


def counts_bytes(tokenizer: Tokenizer) -> None:
    """``n_bytes`` of the ids of a text is the length of its UTF-8; special ids stand for none."""
    tokenizer = trained(copy.deepcopy(tokenizer))
    for text in (*LEARNED, *UNSEEN):
        if (ids := _encoded(tokenizer, text)) is not None:
            size, counted = len(text.encode()), tokenizer.n_bytes(ids)
            hold(counted == size, f"{text!r} has {size} bytes of UTF-8, but n_bytes counts {counted}.")
    none = tokenizer.n_bytes(np.array([tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.mask]))
    hold(none == 0, f"special ids must stand for no bytes, but n_bytes counts {none}.")


def survives_its_state(tokenizer: Tokenizer) -> None:
    """What ``state`` gives survives JSON, and makes of a new tokenizer one that encodes alike."""
    learned, other = trained(copy.deepcopy(tokenizer)), copy.deepcopy(tokenizer)
    state = learned.state()
    try:
        text = json.dumps(state)
    except (TypeError, ValueError) as error:
        raise Broken(f"state must be of plain containers, but JSON cannot hold it: {error}.") from error
    hold(json.loads(text) == state, "state must survive JSON unchanged, but does not.")
    other.load_state(json.loads(text))
    hold(
        other.vocab_size == learned.vocab_size,
        "a loaded tokenizer must have the same vocabulary, but has another size.",
    )
    for sentence in (*LEARNED, *UNSEEN):
        ids, loaded = _encoded(learned, sentence), _encoded(other, sentence)
        same = ids is loaded if ids is None or loaded is None else np.array_equal(ids, loaded)
        hold(same, f"a loaded tokenizer must encode alike, but {sentence!r} differs.")
    hold(learned.state() == state, "encoding must not change the state, but does.")


def _encoded(tokenizer: Tokenizer, text: str) -> np.ndarray | None:
    """The ids of a text; None where the tokenizer refuses it."""
    try:
        return tokenizer.encode(text)
    except ValueError:
        return None
