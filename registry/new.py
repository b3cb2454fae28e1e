"""The file that a block of your own starts as: complete, and working as it stands."""

from __future__ import annotations

import inspect
import io
import itertools
import keyword
import re
import sys
import tokenize

from registry.core import BY_THE_ENVIRONMENT, REGISTRY, Entry, check_name
from registry.errors import ConfigError
from registry.values import guess

MODELS = {
    "linear": "linear/retention",
    "recurrent": "recurrent/rnn",
    "convolution": "convolution/word_window",
    "position": "position/kerple",
    "mask": "mask/dilated",
    "norm": "norm/scale",
    "ffn": "ffn/mlp",
    "residual": "residual/rezero",
    "optimizer": "optimizer/sgd",
    "schedule": "schedule/constant",
    "callback": "callback/early_stopping",
    "model": "model/decoder_only",
    "objective": "objective/next_token",
    "embedding": "embedding/token",
    "head": "head/linear",
    "data": "data/python_source",
    "layer": "layer/sequential",
    "stack": "stack/plain",
    "score": "score/scaled_dot",
    "normaliser": "normaliser/softmax",
}
"""Which of our blocks a new one of a family starts from; of other families, the first. Each trains in the default
model."""

ATTENTION = '''\
"""One head of attention as wide as you like: a token asks, and reads what the tokens that answer hold.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from blocks.attention.past import Past, empty_past, past_bytes
from blocks.attention.reading import Backend, Reading, look
from blocks.contracts import Attention, AttentionPosition, Cost, Layout, Mask, Memory, declare
from registry import register


@register("attention/{name}")
class {Class}(Attention[Past]):
    """Attention with one head of a chosen width.

    Args:
        width: Features of a query, of a key and of a value.
        backend: The kernel: eager takes everything, sdpa and flex (GPU only) a part; auto is the fastest that fits.

    Raises:
        ValueError: ``width`` is less than 1.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None = None,
        /,
        *,
        width: int = 64,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(d_model, mask, position)
        if width < 1:
            raise ValueError(f"width must be at least 1, but got {width}.")
        self.width = width
        self.to_q = nn.Linear(d_model, width, bias=False)
        self.to_k = nn.Linear(d_model, width, bias=False)
        self.to_v = declare(nn.Linear(d_model, width, bias=False), weight="value")
        self.reading = Reading(mask, position, 1, width, backend=backend)
        self.to_out = declare(nn.Linear(width, d_model, bias=False), weight="writer")

    def forward(
        self, x: Tensor, layout: Layout, state: Past | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Past | None]:
        q = self.reading.queries(self.to_q(x).unsqueeze(2), layout)  # (B, T, 1, K)
        (k, v), view, state = look(self._keys_values, x, layout, self.mask, state, memory)
        y = self.reading(q, k, v, view)  # (B, T, 1, K)
        return self.to_out(y.flatten(2)), state

    def empty_state(self, rows: int, capacity: int) -> Past:
        shape = (1, self.width)
        return empty_past(rows, capacity, self.mask, self.to_k.weight, shape, shape)

    def lowering(self) -> str:
        """How long rows are read: natively, or by computing every pair."""
        return self.reading.lowering()

    def cost(self, length: int, memory: int | None = None) -> Cost:
        weights = sum(p.numel() for p in self.parameters())
        read = length if memory is None else memory
        flops = 2 * (length + read) * 2 * self.d_model * self.width
        flops += self.reading.flops(length, self.width, self.width, memory)
        return Cost(weights, flops, past_bytes(self, length, memory), self.reading.steps(length, memory))

    def _keys_values(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        k = self.reading.keys(self.to_k(x).unsqueeze(2), layout)  # (B, S, 1, K)
        return k, self.to_v(x).unsqueeze(2)
'''


def template(family: str, name: str, like: str = "") -> str:
    """A file that registers ``family/name``.

    Args:
        family: What the block is.
        name: What it is called.
        like: The block that it starts from. Empty: one that is easy to read.

    Raises:
        ConfigError: No such family or block, or the name can not be a name.
    """
    known = REGISTRY.families()
    if family not in known:
        raise ConfigError(f"new: no family is named {family!r}{guess(family, known)} There are: {', '.join(known)}.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"new: a name must be lower-case letters, digits and underscores, but got {name!r}.")
    title = "".join(word.capitalize() for word in name.split("_"))
    if keyword.iskeyword(name) or keyword.iskeyword(title):
        raise ConfigError(f"new: a name must not be a keyword of Python, but got {name!r}. Pick another name.")
    try:
        check_name(f"{family}/{name}")
    except ConfigError as refusal:
        raise ConfigError(f"new: {refusal}") from refusal
    if f"{family}/{name}" in REGISTRY:
        raise ConfigError(f"new: {family}/{name} is taken, by {REGISTRY[f'{family}/{name}'].where}. Pick another name.")
    if family == "attention" and not like:
        return ATTENTION.replace("{name}", name).replace("{Class}", _free(title, family, ATTENTION))
    start = like or MODELS.get(family, "")
    entry = REGISTRY.find(start if start else REGISTRY.names(family)[0], (family,), "new", BY_THE_ENVIRONMENT)
    return _renamed(entry, f"{family}/{name}", title)


def _free(title: str, family: str, source: str) -> str:
    """A name for a class that nothing else in its file has."""
    return f"{title}{family.capitalize()}" if re.search(rf"\b{title}\b", source) else title


def _renamed(entry: Entry, name: str, title: str) -> str:
    """The file of a registered block, under another name. Its other names, and its own, are left out."""
    old = entry.constructor.__name__
    source = inspect.getsource(sys.modules[entry.constructor.__module__])
    title = title if title == old else _free(title, entry.family, source)
    own = re.search(rf'^@register\("{entry.name}"(.*)\)$', source, re.MULTILINE)
    defaults = own[1] if own else ""
    decorators = re.compile(r"(?:^@register\(.*\)\n)+(?=(?:class|def) " + old + r"\b)", re.MULTILINE)
    source = decorators.sub(f'@register("{name}"{defaults})\n', source)
    source = re.sub(r"^@register\(\"(?!" + name + r"\").*\)\n", "", source, flags=re.MULTILINE)
    return _call(source, old, title)


def _call(source: str, old: str, new: str) -> str:
    """Rename a class where code names it, not where prose or another module does."""
    lines = source.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for before, token in reversed(list(itertools.pairwise(tokens))):
        if token.type == tokenize.NAME and token.string == old and before.string not in (".", "import"):
            row, column = token.start[0] - 1, token.start[1]
            lines[row] = lines[row][:column] + new + lines[row][column + len(old) :]
    return "".join(lines)
