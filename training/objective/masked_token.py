"""Some tokens from all the others: a part of them is hidden, and asked for.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805
Pairs in one row: Lample and Conneau 2019, https://arxiv.org/abs/1901.07291
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from blocks.contracts import IGNORE
from registry import register
from training.batch import Batch
from training.contracts import Example, Gives, Objective, Shape, Tokenizer
from training.objective.rows import join, padded, trees, whole, windows


@register("objective/masked_token")
class MaskedToken(Objective):
    """Some tokens from those around them; the halves of a pair are read in one row.

    Trees that are given with the data are kept as they are: they say what hangs on a hidden word as well.

    Args:
        rate: Share of a row's tokens that are asked for; at least one is.
        masked: Share of the asked ones that are replaced by the mask.
        random: Share of the asked ones that are replaced by any token. The rest stays as it is.

    Raises:
        ValueError: The model does not read both ways, or a share is out of bounds.
    """

    keeps_trees: ClassVar[bool] = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        shape: Shape,
        gives: Gives,
        /,
        *,
        rate: float = 0.15,
        masked: float = 0.8,
        random: float = 0.1,
    ) -> None:
        super().__init__(tokenizer, max_length, shape, gives)
        if shape != "encoder":
            instead = "next_token" if shape == "decoder" or gives == "pairs" else "span_corruption"
            raise ValueError(
                f"{type(self).__name__} must be asked of an encoder, which reads both ways, but got a model of shape "
                f"{shape!r}. "
                f"Use objective={instead}, or model=encoder_only."
            )
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, but got {rate}.")
        if masked < 0 or random < 0 or masked + random > 1:
            raise ValueError(f"masked and random must be shares that sum to at most 1, but got {masked} and {random}.")
        self.rate = rate
        self.masked = masked
        self.random = random
        self.shown = 1 - masked - random

    def batch(self, examples: list[Example], rng: np.random.Generator) -> Batch:
        if self.gives == "pairs":
            joined, layout = padded([join(e, self.tokenizer) for e in examples], self.tokenizer.pad)
            tokens, targets = self._hide(joined.numpy(), rng)
            return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), layout)
        rows, document = windows(examples)
        return whole(*self._hide(rows, rng), document, trees(examples))

    def _hide(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows with some tokens hidden, and what was there. (B, T) -> twice (B, T)"""
        text = self.tokenizer.text_ids
        draw = rng.random(rows.shape, dtype=np.float32)
        draw[(rows < text.start) | (rows >= text.stop)] = 2.0  # what is not text is never asked for
        n_text = (draw < 2.0).sum(axis=1)
        n_asked = np.minimum(np.maximum(np.rint(self.rate * n_text), 1), n_text)  # (B,)
        rank = np.empty(rows.shape, dtype=np.int64)
        np.put_along_axis(rank, draw.argsort(axis=1), np.arange(rows.shape[1])[None], axis=1)
        asked = rank < n_asked[:, None]

        fate = rng.random(rows.shape, dtype=np.float32)
        tokens = rows.astype(np.int64)
        tokens[asked & (fate < self.masked)] = self.tokenizer.mask
        replaced = asked & (fate >= self.masked) & (fate < self.masked + self.random)
        tokens[replaced] = rng.integers(text.start, text.stop, int(replaced.sum()))
        return tokens, np.where(asked, rows, IGNORE)

    def prompt(self, text: str) -> Example:
        raise ValueError(
            f"a prompt must be for a model with a decoder, but {type(self).__name__} trains one that can not go on."
        )
