"""Trees of running text, by brackets and indentation: what hangs on what, without a parser.

Each token has one head, an earlier token or itself (a root); a document may have several roots. The rules speak of
characters. A token is judged by its first character that is not blank, and hangs on the token that holds the head of
that character.

- A line's first character hangs on the first of the nearest earlier line that is indented less, if there is one.
- Inside brackets lines do not count, as in Python: whatever begins there hangs on the innermost open bracket, and so
  does the bracket that closes it.
- Everything else in a line, a word or a sign, hangs on the line's first character.
- The rest of a word hangs on its first character. A byte of a longer character counts as a letter.
- Blanks and ends of lines hang on the last character that is none.
- A token in the place of hidden text, a mask or a sentinel, counts as a letter: most characters are one.

Text is not all code: a bracket counts as closed where one around it closes, and where a line begins that is indented
no further than the one it was opened in, unless with a closing bracket. A closing bracket that nothing opened is a
sign like others. Indentation is counted in blanks; a tab is one.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from training.contracts import Tokenizer

Rule = Literal["none", "nesting"]

END, LINE, BLANK, LETTER, SIGN = range(5)
OPENING, CLOSING = "([{", ")]}"
OPEN = {bracket: 5 + i for i, bracket in enumerate(OPENING)}
CLOSE = {bracket: 8 + i for i, bracket in enumerate(CLOSING)}
PARTNER = {CLOSE[right]: OPEN[left] for left, right in zip(OPENING, CLOSING, strict=True)}
OPENERS = frozenset(PARTNER.values())
"""Kinds of characters. What is neither text nor hides some, such as the end of a document, is an ``END``."""


class Kinds(NamedTuple):
    """What kinds of characters the tokens of a vocabulary stand for.

    all: of all tokens, one after another. size, start: how many are a token's, and where they begin. (V,) each
    judged: by which of its own a token is judged. (V,)
    """

    all: np.ndarray
    size: np.ndarray
    start: np.ndarray
    judged: np.ndarray


class Nesting:
    """The heads of tokens, by the text that each of them stands for.

    Args:
        tokenizer: Has learned its vocabulary when ``heads`` is called.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def kinds(self) -> Kinds:
        said = [_kinds(self.tokenizer, i) for i in range(self.tokenizer.vocab_size)]
        size = np.array([len(kinds) for kinds in said])
        judged = [next((i for i, k in enumerate(kinds) if k not in (LINE, BLANK)), 0) for kinds in said]
        return Kinds(np.concatenate(said), size, np.cumsum(size) - size, np.array(judged))

    def heads(self, tokens: np.ndarray) -> np.ndarray:
        """For each token the index, in its row, of its head; a root has its own. (B, T) -> (B, T) int64

        A row is all there is: what a token would hang on before it, is no head. A token that neither is text nor hides
        some is a root, and nothing before it is a head of what follows, so that documents stay apart.
        """
        kinds = self.kinds
        rows, length = tokens.shape
        ended = np.full((rows, length + 1), self.tokenizer.eos)  # one text, with an end before each row
        ended[:, 1:] = tokens
        ids = ended.ravel()
        size = kinds.size[ids]
        first = np.cumsum(size) - size  # of each token, in the text
        holder = np.repeat(np.arange(len(ids)), size)  # of each character
        text = kinds.all[kinds.start[ids][holder] + np.arange(len(holder)) - first[holder]]
        heads = holder[_heads(text)[first + kinds.judged[ids]]].reshape(ended.shape)
        return (heads - np.arange(rows)[:, None] * (length + 1) - 1)[:, 1:]


def _kinds(tokenizer: Tokenizer, token: int) -> np.ndarray:
    """What kinds of characters a token stands for; a part of a character and what is hidden are letters."""
    if token == tokenizer.mask or token in tokenizer.sentinels:
        return np.array([LETTER])
    if token not in tokenizer.text_ids:
        return np.array([END])
    return np.array([_kind(character) for character in tokenizer.decode([token])] or [LETTER])


def _kind(character: str) -> int:
    if character == "\n":
        return LINE
    if character.isspace():
        return BLANK
    if character.isalnum() or character in ("_", "\N{REPLACEMENT CHARACTER}"):
        return LETTER
    return OPEN.get(character) or CLOSE.get(character) or SIGN


def _heads(text: np.ndarray) -> np.ndarray:
    """Where the head of each character stands, from the kinds of all. (N,), which begins with an ``END`` -> (N,)"""
    index = np.arange(len(text))

    def last(there: np.ndarray) -> np.ndarray:
        """Where the nearest character stands, here or before, that is ``there``."""
        return np.maximum.accumulate(np.where(there, index, 0))

    end, blank, letter = text == END, (text == LINE) | (text == BLANK), text == LETTER
    margin = last(end | (text == LINE))  # what stands before the line
    solid = last(~blank)
    begins = ~blank & ~end  # a line
    begins[1:] &= solid[:-1] <= margin[1:]
    continues = letter.copy()  # a word
    continues[1:] &= letter[:-1]

    turns = np.flatnonzero(begins | end | (text > SIGN))
    own, following = _turns(text[turns], turns, begins[turns], turns - margin[turns])
    at = np.zeros(len(text), dtype=np.int64)
    at[turns] = np.arange(len(turns))
    heads = following[np.maximum.accumulate(at)]
    heads[turns] = own
    heads = np.where(continues, last(letter & ~continues), heads)
    return np.where(blank, np.where(end[solid], index, solid), heads)


def _turns(kinds: np.ndarray, places: np.ndarray, begins: np.ndarray, widths: np.ndarray) -> list[np.ndarray]:
    """The heads of those characters that change what others hang on, and the head of others after each. Twice (M,)

    Args:
        kinds: An end, a bracket, or any that begins a line. (M,)
        places: Where each stands. (M,)
        begins: Whether it begins a line. (M,)
        widths: If it does, how far that is indented. (M,)
    """
    own, following = [], []
    lines: list[tuple[int, int]] = []  # width and place of those that a line may hang on
    brackets: list[tuple[int, int, int]] = []  # kind, place, and width of its line, of those that are open
    width = 0
    for kind, place, begin, indent in zip(*(part.tolist() for part in (kinds, places, begins, widths)), strict=True):
        if kind == END:
            lines, brackets = [], []
            own.append(place)
            following.append(place)
            continue
        head = brackets[-1][1] if brackets else lines[-1][1] if lines else place
        if begin:
            width = indent
            while brackets and brackets[-1][2] >= width + (kind in PARTNER):
                brackets.pop()
            if brackets:
                head = brackets[-1][1]
            else:
                while lines and lines[-1][0] >= width:
                    lines.pop()
                head = lines[-1][1] if lines else place
                lines.append((width, place))
        if kind in PARTNER and any(opened == PARTNER[kind] for opened, _, _ in brackets):
            while (opened := brackets.pop())[0] != PARTNER[kind]:
                pass
            head = opened[1]
        elif kind in OPENERS:
            brackets.append((kind, place, width))
        own.append(head)
        following.append(brackets[-1][1] if brackets else lines[-1][1])
    return [np.array(own), np.array(following)]
