"""Each token from those before it.

Radford et al. 2018, https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf
Sutskever et al. 2014, https://arxiv.org/abs/1409.3215
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from blocks.contracts import IGNORE
from registry import register
from training.batch import Batch
from training.contracts import Example, Gives, Objective, Shape, Tokenizer
from training.objective.rows import answer, whole, windows


@register("objective/next_token")
class NextToken(Objective):
    """Each token of running text, or of a pair's target, from those before it.

    An encoder-decoder reads the source of a pair in its encoder; a decoder reads it in the row, before the target, and
    is not asked for it. Trees that are given with the data are refused: that of a whole sentence tells the future.

    Raises:
        ValueError: The model sees the token it is asked for, or has an encoder with nothing to read.
    """

    overlap: ClassVar[int] = 1

    def __init__(self, tokenizer: Tokenizer, max_length: int, shape: Shape, gives: Gives, /) -> None:
        super().__init__(tokenizer, max_length, shape, gives)
        if shape == "encoder":
            raise ValueError(
                f"{type(self).__name__} must be asked of a model that hides the future, but got an encoder, which "
                "would see the answer. Use objective=masked_token, or a model with a decoder."
            )
        if shape == "encoder_decoder" and gives == "text":
            raise ValueError(
                f"{type(self).__name__} must have a source for the encoder, but got running text, which has none. "
                "Use objective=span_corruption, data of pairs, or a model without an encoder."
            )

    def window(self, length: int) -> int:
        return length + 1

    def batch(self, examples: list[Example], rng: np.random.Generator) -> Batch:
        if self.gives == "pairs":
            return answer(examples, self.tokenizer, self.shape)
        tokens, document = windows(examples)
        targets = tokens[:, 1:]
        if document is not None:  # the first token of a document does not follow from the last of another
            targets = np.where(document[:, 1:] == document[:, :-1], targets, IGNORE)
        return whole(tokens[:, :-1], targets, document if document is None else document[:, :-1])

    def prompt(self, text: str) -> Example:
        ids = self.tokenizer.encode(text)
        if self.gives == "text":
            return Example(ids)
        begin = np.array([self.tokenizer.bos])
        return Example(begin, ids) if self.shape == "encoder_decoder" else Example(np.append(ids, begin))
