"""What every block family promises. Read this file and you know the project.

Axes, in shape comments everywhere:

    B  rows in the batch               D  model width (d_model)
    T  tokens of this call             H  query heads (n_heads)
    S  keys a query may look at        G  key/value heads (n_kv_heads), G divides H
    V  vocabulary                      K  width of one head (head_dim)
    F  hidden width of a feed-forward

Constructors, in every family:

    def __init__(self, <facts from the parent>, /, *, <choices from the config>)

Batch first, time second. ``x, layout, state, memory`` and nothing else travel through a model.

Every parameter has a role (``blocks/roles.py``): a projection that writes into the stream, another matrix, a table, a
gain, a bias, dynamics. A bare ``nn.Parameter`` gets it by ``declare``.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from blocks.roles import DECAYED as DECAYED
from blocks.roles import ROLES as ROLES
from blocks.roles import Held as Held
from blocks.roles import Role as Role
from blocks.roles import declare as declare
from blocks.roles import role_of as role_of
from blocks.roles import roles_of as roles_of

PAD = -1
"""The position and the document of a padding token."""


class Scratch:
    """What one forward shares between its blocks and reports to its caller; gone after the call.

    kept: values that several layers need and one makes, by key.
    losses: auxiliary losses that blocks report, by name; one entry a block.
    """

    def __init__(self) -> None:
        self.kept: dict[Hashable, Any] = {}
        self.losses: dict[str, list[Tensor]] = {}


class Layout(NamedTuple):
    """Where each token sits. One value for padding, packing and decoding.

    position: (B, T) int64, index of the token in its own document; 0 starts one.
    document: (B, T) int64, equal for tokens of one document. Real documents count from 0.
        Both are ``PAD`` at padding.
    dense: every row is one whole document, from position 0, without padding.
        A promise that kernels may use to skip building a mask.
    heads: (B, T) int64, the position of each token's syntactic head in its own document; a root
        is its own head, padding has ``PAD``. None: no tree is known.
    scratch: shared by the blocks of one forward, see ``once`` and ``report``.
    """

    position: Tensor
    document: Tensor
    dense: bool = False
    heads: Tensor | None = None
    scratch: Scratch | None = None

    @classmethod
    def full(cls, rows: int, length: int, device: torch.device | str | None = None) -> Layout:
        """One document a row, all of the same length."""
        position = torch.arange(length, device=device).expand(rows, length)
        return cls(position, torch.zeros_like(position), dense=True)

    @classmethod
    def packed(cls, document: Tensor, heads: Tensor | None = None) -> Layout:
        """Documents side by side in a row, told apart by ``document`` (B, T); ``PAD`` is padding.

        The tokens of a document stand together.
        """
        index = torch.arange(document.shape[1], device=document.device).expand_as(document)
        first = torch.ones_like(document, dtype=torch.bool)
        first[:, 1:] = document[:, 1:] != document[:, :-1]
        start = torch.where(first, index, 0).cummax(dim=1).values
        return cls(torch.where(document == PAD, PAD, index - start), document, heads=heads)

    @classmethod
    def padded(cls, lengths: Tensor, length: int, side: Literal["left", "right"] = "right") -> Layout:
        """One document a row of ``lengths`` (B,) tokens, padded to ``length``."""
        index = torch.arange(length, device=lengths.device)
        first = length - lengths[:, None] if side == "left" else torch.zeros_like(lengths)[:, None]
        real = (index >= first) & (index < first + lengths[:, None])
        return cls(torch.where(real, index - first, PAD), torch.where(real, 0, PAD))

    @property
    def real(self) -> Tensor:
        """(B, T) bool, False at padding."""
        return self.document != PAD

    def next(self) -> Layout:
        """The layout of the one token that follows each row, one document a row. (B, 1)"""
        return Layout(self.position.amax(1, keepdim=True) + 1, self.document.amax(1, keepdim=True))

    def slice(self, start: int, stop: int) -> Layout:
        """The layout of tokens ``start`` to ``stop``. (B, stop - start)"""
        heads = None if self.heads is None else self.heads[:, start:stop]
        return Layout(self.position[:, start:stop], self.document[:, start:stop], heads=heads)

    def fresh(self) -> Layout:
        """This layout at the start of a forward, with nothing shared or reported yet."""
        return self._replace(scratch=Scratch())

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """``make()``, computed once a forward for each ``key``; the blocks of a forward share it.

        ``key`` holds the object that makes the value (itself, not its id) and what it depends on.
        """
        if self.scratch is None:
            return make()
        if key not in self.scratch.kept:
            self.scratch.kept[key] = make()
        return self.scratch.kept[key]

    def report(self, name: str, loss: Tensor) -> None:
        """Hand an auxiliary loss (a scalar, already weighted) to whoever runs the forward."""
        if self.scratch is not None:
            self.scratch.losses.setdefault(name, []).append(loss)


class Memory(NamedTuple):
    """Another sequence to read from: an encoder's output and its layout."""

    x: Tensor  # (B, S, D)
    layout: Layout


@dataclass(frozen=True, slots=True)
class State:
    """What a block remembers between calls. Tensors, batch axis first; the base remembers nothing.

    A state is a value: it is passed in and returned. A block may write into the tensors of the
    state it was given, so the caller gives the old value up.
    """

    def select(self, rows: Tensor) -> Self:
        """Reorder or repeat the rows of the batch, as beam search does. ``rows``: (B',) int64"""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: _select(v, rows) for k, v in kept.items()})

    def bytes(self) -> int:
        """The memory that its tensors take, in bytes."""
        return sum(_bytes(getattr(self, f.name)) for f in fields(self))


def _select(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    if isinstance(value, State):
        return value.select(rows)
    if isinstance(value, tuple):
        return tuple(_select(v, rows) for v in value)
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, State):
        return value.bytes()
    if isinstance(value, tuple | list):
        return sum(_bytes(v) for v in value)
    return 0


class Cost(NamedTuple):
    """What one row of ``T`` tokens costs a block.

    parameters: numbers that are learned.
    flops: of one forward, in matrix products and convolutions; a multiply-add is two.
    state_bytes: what the state holds after ``T`` tokens, in bytes.
    steps: operations that must follow one another, whatever the hardware. A product of matrices is one, whatever
        its sizes; so is a sum.
    """

    parameters: int
    flops: int
    state_bytes: int
    steps: int


class Path(NamedTuple):
    """How a token gets what an earlier token holds.

    Vaswani et al. 2017, table 1, https://arxiv.org/abs/1706.03762

    layers: layers of one kind, one upon another, that it takes. None: no number of them is enough.
    operations: operations that follow one another on the way through those layers.
    """

    layers: int | None
    operations: int | None


NEVER = Path(None, None)
"""No number of layers is enough."""


def joined(later: Tensor, earlier: Tensor) -> Tensor:
    """What a layer reads through the layer below it. Bool (T, T), (T, T) -> (T, T)"""
    return (later.float() @ earlier.float()) > 0


def reaches(reads: Tensor, distance: int) -> bool:
    """Every token that has one ``distance`` before it reads that one. Bool (T, T), as ``Mixer.reads`` gives it."""
    if not 1 <= distance < len(reads):
        raise ValueError(f"distance must be between 1 and {len(reads) - 1} in this row, but got {distance}.")
    return bool(reads.diagonal(-distance).all())


def layers_between(reads: Tensor, distance: int) -> int | None:
    """How many equal layers bring every token what the one ``distance`` before it holds. None: no number does.

    ``reads``: what one layer reads, as ``Mixer.reads`` gives it; a residual keeps the token itself. (T, T)
    """
    powers = [reads | torch.eye(len(reads), dtype=torch.bool)]  # what 1, 2, 4, ... layers read
    while not reaches(powers[-1], distance):
        twice = joined(powers[-1], powers[-1])
        if torch.equal(twice, powers[-1]):
            return None
        powers.append(twice)
    layers, read = 0, torch.eye(len(reads), dtype=torch.bool)  # as many as are not enough
    for k in reversed(range(len(powers) - 1)):
        more = joined(powers[k], read)
        if not reaches(more, distance):
            layers, read = layers + 2**k, more
    return layers + 1


class Mask:
    """Who may see whom. The base class hides nothing inside a document but, if causal, the future.

    A policy is a rule on layouts, true where query ``q`` may see key ``k``. It must broadcast, so
    that one rule serves dense masks, cached keys and block-sparse kernels alike. Other documents,
    padding and (if ``causal``) later tokens are hidden for it. A policy is immutable.
    """

    families: ClassVar[tuple[str, ...]] = ("mask",)

    causal: bool
    """No query may see a later key."""

    window: int | None = None
    """No query sees a key ``window`` or more tokens away (its own token counts). None: no bound."""

    blocks: Any | None = None
    """A frozen sparse pattern that a block-sparse kernel can follow, or None."""

    def __init__(self, causal: bool, /) -> None:
        self.causal = causal

    @property
    def plain(self) -> bool:
        """``causal`` says it all: fused kernels, recurrences and scans know such a rule by name."""
        return type(self).sees is Mask.sees

    def sees(self, q: Layout, k: Layout) -> Tensor:
        """Bool, at the shape to which ``q.position`` and ``k.position`` broadcast."""
        return (q.position == q.position) & (k.position == k.position)

    def pairs(self, length: int) -> Tensor:
        """Which token sees which in one document of ``length`` tokens. (T, T) bool: query, key"""
        layout = Layout.full(1, length, "cpu")
        return self(layout, layout)[0]

    def __call__(self, q: Layout, k: Layout) -> Tensor:
        """(B, T, S) bool, True where the query may see the key."""
        q, k = _axis(q, 2), _axis(k, 1)
        allowed = (q.document == k.document) & (k.document != PAD) & self.sees(q, k)
        return allowed & (k.position <= q.position) if self.causal else allowed


def _axis(layout: Layout, dim: int) -> Layout:
    heads = None if layout.heads is None else layout.heads.unsqueeze(dim)
    return Layout(layout.position.unsqueeze(dim), layout.document.unsqueeze(dim), heads=heads)


class EmbeddingPosition(nn.Module, ABC):
    """How the stream knows order: something added at the foot of a stack."""

    families: ClassVar[tuple[str, ...]] = ("position",)

    def __init__(self, d_model: int, max_length: int, /) -> None:
        super().__init__()

    @abstractmethod
    def embed(self, x: Tensor, layout: Layout) -> Tensor:
        """(B, T, D) -> (B, T, D)"""


class AttentionPosition(nn.Module):
    """How attention knows order. The base class does not.

    A pair (query, key) is judged by itself: ``bias`` and ``value_bias`` may be called on any part
    of the queries and keys, in any order, and give that part of the whole.
    """

    families: ClassVar[tuple[str, ...]] = ("position",)

    relative: bool = True
    """Only distances count: moving a whole document changes nothing."""

    needs_trees: bool = False
    """It reads ``Layout.heads``; a run whose data gives none is refused before anything is allocated."""

    def __init__(self, n_heads: int, head_dim: int, /) -> None:
        super().__init__()

    def admit(self, mask: Mask) -> None:
        """Raises ``ValueError`` where this position means nothing under ``mask``, with the reason."""

    def rotate(self, x: Tensor, layout: Layout, role: Literal["query", "key"]) -> Tensor:
        """Turn queries or keys by where they sit. (B, T, any heads, K) -> the same"""
        return x

    def bias(self, q: Tensor, k: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor | None:
        """Add to the scores. (B, T, H, K), (B, S, G, K) -> (B or 1, H, T, S), or None for nothing.

        ``q`` and ``k`` have been rotated; ``q`` has not been scaled.
        """
        return None

    def value_bias(self, p: Tensor, q_layout: Layout, k_layout: Layout) -> Tensor | None:
        """Add to what each head read. Weights (B, H, T, S) -> (B, T, H, K), or None for nothing."""
        return None

    @property
    def acts(self) -> frozenset[str]:
        """Which of ``rotate``, ``bias`` and ``value_bias`` it does, so that a host can refuse one."""
        hooks = ("rotate", "bias", "value_bias")
        return frozenset(h for h in hooks if getattr(type(self), h) is not getattr(AttentionPosition, h))

    def flops(self, queries: int, keys: int) -> int:
        """Of its matrix products, where one row of ``queries`` reads ``keys``; a multiply-add is two."""
        return 0

    def steps(self, keys: int) -> int:
        """Operations that must follow one another beside the attention's own, where a row reads ``keys``."""
        return 0


class Score(nn.Module):
    """How alike a query and a key are: ``scale`` times the dot product of what ``prepare`` makes of each.

    The base scales by 1 / sqrt(head_dim) and changes neither.
    """

    families: ClassVar[tuple[str, ...]] = ("score",)

    scale: float
    """What the dot product is multiplied by."""

    cap: float | None = None
    """Scores ``s`` become ``cap * tanh(s / cap)``. None: they are not bounded."""

    def __init__(self, n_heads: int, head_dim: int, /) -> None:
        super().__init__()
        self.scale = head_dim**-0.5

    def prepare(self, x: Tensor, role: Literal["query", "key"], rotate: Callable[[Tensor], Tensor]) -> Tensor:
        """Queries (B, T, H, K) or keys (B, S, G, K) as the dot product takes them, rotated on the way."""
        return rotate(x)


class Normaliser(nn.Module):
    """From scores to the weights of a sum. The base is the softmax."""

    families: ClassVar[tuple[str, ...]] = ("normaliser",)

    total: ClassVar[Literal["one", "at most one", "any"]] = "one"
    """What the weights of a row add up to, where they are shares of a whole; "any": they are not."""

    def __init__(self, n_heads: int, /) -> None:
        super().__init__()

    @property
    def plain(self) -> bool:
        """It is the softmax, which fused kernels know."""
        return type(self).forward is Normaliser.forward

    def forward(self, scores: Tensor, allowed: Tensor | None) -> Tensor:
        """(B, H, T, S) -> (B, H, T, S), zero where ``allowed`` (B, 1, T, S) is False.

        At least one key of every row is allowed; None: all of them are.
        """
        hidden = scores if allowed is None else scores.masked_fill(~allowed, float("-inf"))
        return hidden.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


class Norm(nn.Module):
    """Brings the features of each token to a common scale. (..., D) -> (..., D), features only."""

    families: ClassVar[tuple[str, ...]] = ("norm",)

    def __init__(self, d_model: int, /) -> None:
        super().__init__()


S = TypeVar("S", bound=State)


class Mixer(nn.Module, ABC, Generic[S]):
    """Moves information between tokens: attention, recurrence, convolution, a whole stack.

    A mixer realises its mask in its own way, or refuses it in its constructor with ``ValueError``.
    """

    families: ClassVar[tuple[str, ...]] = ("attention", "linear", "recurrent", "convolution")

    prefers: ClassVar[dict[str, str]] = {"position": "none"}
    """What ``auto`` means for this mixer, by slot."""

    def __init__(self, d_model: int, mask: Mask, /) -> None:
        super().__init__()
        self.d_model = d_model
        self.mask = mask

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        layout: Layout,
        state: S | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, S | None]:
        """Mix. (B, T, D) -> (B, T, D)

        Args:
            x: The tokens of this call. (B, T, D)
            layout: Where those tokens sit. Padding must not change a real token, nor one document
                another. What stands at padding in the output is zero or ignored, and finite.
            state: What earlier calls left behind. None: nothing to recall, and nothing to remember.
            memory: Another sequence to read; only an ``Attention`` takes one.

        Returns:
            The mixed tokens, and the state that now includes them (None if given None).
        """

    @abstractmethod
    def empty_state(self, rows: int, capacity: int) -> S:
        """The state of a mixer that has seen nothing yet and will see at most ``capacity`` tokens.

        Raises:
            ValueError: It can not go on from a past (it reads both ways).
        """

    @abstractmethod
    def cost(self, length: int) -> Cost:
        """What one row of ``length`` tokens costs, without padding."""

    def reads(self, length: int) -> Tensor:
        """Which token's output depends on which token, in one document of ``length`` tokens; the base follows the mask.

        Returns:
            (T, T) bool on the CPU: output, input.
        """
        return self.mask.pairs(length)

    def path(self, distance: int, length: int) -> Path:
        """How every token gets what the one ``distance`` before it holds, in one document of ``length`` tokens.

        The base has one operation a layer. A recurrence is one layer, and as many operations as it takes states
        from the one token to the other.

        Raises:
            ValueError: ``distance`` is less than 1, or not less than ``length``.
        """
        if self.mask.plain and type(self).reads is Mixer.reads:
            return Path(1, 1)
        layers = layers_between(self.reads(length), distance)
        return Path(layers, layers)


class Attention(Mixer[S]):
    """A mixer that can read a memory, so it can serve as cross-attention.

    ``position`` is a factory ``(n_heads, head_dim) -> AttentionPosition``, or None for no position.
    With a memory, its keys are made at the first call and kept in the state
    (``empty_state(rows, 0)`` is the state of a memory that has not been read yet).
    """

    families: ClassVar[tuple[str, ...]] = ("attention",)
    prefers: ClassVar[dict[str, str]] = {"position": "rope"}

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Callable[[int, int], AttentionPosition] | None,
        /,
    ) -> None:
        super().__init__(d_model, mask)

    @abstractmethod
    def cost(self, length: int, memory: int | None = None) -> Cost:
        """What one row of ``length`` tokens costs, without padding.

        Args:
            length: Tokens of the row.
            memory: Tokens of the memory that they read. None: they read each other. The FLOPs are those of the
                first call, which makes the memory's keys; the state is what is kept of the memory.
        """


def class_of(factory: Callable[..., Any]) -> type:
    """What a factory builds; ``object`` where that is not known."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return factory if isinstance(factory, type) else object


def acts_in_attention(position: type) -> bool:
    """Whether a kind of position does anything inside attention."""
    hooks = ("rotate", "bias", "value_bias")
    return any(getattr(position, hook, None) is not getattr(AttentionPosition, hook) for hook in hooks)


def placed(
    make: Callable[..., Any],
    d_model: int,
    mask: Mask,
    position: Callable[[int, int], AttentionPosition] | None,
    site: Site | None = None,
) -> Attention[Any]:
    """An attention that has taken the position it was given, which the layers of a ``site`` share.

    That it also uses it is a law, ``blocks.laws.uses_its_position``.

    Raises:
        ValueError: It does not build the position, or does not keep it.
    """
    made: list[AttentionPosition] = []

    def build(n_heads: int, head_dim: int) -> AttentionPosition:
        assert position is not None
        made.append(position(n_heads, head_dim) if site is None else site.share(position, n_heads, head_dim))
        return made[-1]

    attention: Attention[Any] = make(d_model, mask, None if position is None else build)
    if position is None:
        return attention
    kind, given = type(attention).__name__, class_of(position)
    if not made and acts_in_attention(given):
        raise ValueError(
            f"position must be none for {kind}, which builds no position, but got {given.__name__}. "
            "Set position=none; or, in its constructor, call position(n_heads, head_dim) and keep what that returns."
        )
    parts = set(attention.modules())
    if any(one.acts and one not in parts for one in made):
        raise ValueError(
            f"position must be none for {kind}, which keeps no position, but got {given.__name__}. "
            "Set position=none; or, in its constructor, keep what position(n_heads, head_dim) returns as an attribute."
        )
    return attention


class Ffn(nn.Module, ABC):
    """Thinks about each token. (B, T, D) -> (B, T, D)

    Most are stateless and return the state as it came.
    """

    families: ClassVar[tuple[str, ...]] = ("ffn",)

    def __init__(self, d_model: int, /) -> None:
        super().__init__()
        self.d_model = d_model

    @abstractmethod
    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> tuple[Tensor, State | None]:
        """An auxiliary loss goes to ``layout.report``; padding takes no part in one."""

    def empty_state(self, rows: int) -> State:
        """The state before the first token."""
        return State()

    @abstractmethod
    def cost(self, length: int) -> Cost:
        """What one row of ``length`` tokens costs."""

    def reads(self, length: int) -> Tensor:
        """Which token's output depends on which token, as for a mixer; the base takes each token alone. (T, T) bool"""
        return torch.eye(length, dtype=torch.bool)


@dataclass(frozen=True)
class Site:
    """Where a layer stands: what its parent knows.

    causal: the layer's self-mixing must hide the future.
    max_length: the most tokens a row will ever have.
    reads_memory: there is another sequence to read.
    depth: which layer of its stack this is, from 0.
    n_layers: layers in its stack.
    encoder_layers, decoder_layers: layers in the whole model's stacks; 0 where there is none.
    shared: what has been built once for the whole stack.
    """

    causal: bool
    max_length: int
    reads_memory: bool = False
    depth: int = 0
    n_layers: int = 1
    encoder_layers: int = 0
    decoder_layers: int = 0
    shared: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def share(self, factory: Callable[..., Any], *facts: Hashable) -> Any:
        """``factory(*facts)``, built once in a stack for each distinct spec and facts."""
        key = (_frozen(factory), facts)
        if key not in self.shared:
            self.shared[key] = factory(*facts)
        return self.shared[key]


def _frozen(value: Any) -> Hashable:
    """A key that is equal for factories with equal choices."""
    if isinstance(value, functools.partial):
        return (value.func, _frozen(value.keywords), _frozen(list(value.args)))
    if isinstance(value, dict):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value  # type: ignore[no-any-return]


class Residual(nn.Module, ABC):
    """Ties a sublayer to the stream: where the norm, the scale, the dropout go.

    The stream is (B, T, D); with ``streams`` > 1 it is (B, T, streams, D), widened at the foot of
    a stack (each copy the embedded token) and summed at its top.
    """

    families: ClassVar[tuple[str, ...]] = ("residual",)

    final_norm: bool
    """Whether the stream needs a norm after the last layer."""

    gain: float = 1.0
    """What the sublayer's values and writers, and all matrices of a feed-forward, are multiplied by at the start."""

    streams: int = 1

    def __init__(self, d_model: int, site: Site, /) -> None:
        super().__init__()

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """What the sublayer sees. Stream -> (B, T, D)"""

    @abstractmethod
    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream ``x`` after the sublayer said ``y``. Stream, (B, T, D) -> stream"""

    def cost(self, length: int) -> Cost:
        """What one row of ``length`` tokens costs; the base has every ``nn.Linear`` see each token once."""
        return _linear_cost(self, length)


class Layer(Mixer[S]):
    """One step of depth; takes the stream (see ``Residual``) and gives it back."""

    families: ClassVar[tuple[str, ...]] = ("layer",)

    final_norm: bool
    """Whether the stream that leaves this layer still needs a norm."""

    streams: int

    def __init__(self, d_model: int, site: Site, mask: Mask, /) -> None:
        super().__init__(d_model, mask)

    def sublayers(self) -> Iterator[tuple[Residual, nn.Module]]:
        """Each sublayer with the residual that ties it to the stream, in the order they are used."""
        return iter(())

    @abstractmethod
    def cost(self, length: int, memory: int | None = None) -> Cost:
        """What one row of ``length`` tokens costs that reads a memory of ``memory`` tokens (None: there is none)."""


class Stack(Mixer[S]):
    """Layers one after another; (B, T, D) -> (B, T, D)."""

    families: ClassVar[tuple[str, ...]] = ("stack",)

    def __init__(self, d_model: int, site: Site, mask: Mask, /) -> None:
        super().__init__(d_model, mask)

    @abstractmethod
    def cost(self, length: int, memory: int | None = None) -> Cost:
        """What one row of ``length`` tokens costs that reads a memory of ``memory`` tokens (None: there is none)."""


class Embedding(nn.Module, ABC):
    """Tokens to stream."""

    families: ClassVar[tuple[str, ...]] = ("embedding",)

    def __init__(self, vocab_size: int, d_model: int, /) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """(B, T) int64 -> (B, T, D)"""

    @abstractmethod
    def unembed(self, x: Tensor) -> Tensor:
        """Score every token by its own vector, for a tied head. (..., D) -> (..., V)"""

    def cost(self, length: int) -> Cost:
        """What one row of ``length`` tokens costs; the base has every ``nn.Linear`` see each token once."""
        return _linear_cost(self, length)


Answer = Literal["token", "tag", "class"]
"""What a head scores: each token of the vocabulary or each tag, for every token of the stream; or each class, for a
whole row."""


class Head(nn.Module, ABC):
    """Stream to logits."""

    families: ClassVar[tuple[str, ...]] = ("head",)

    answers: ClassVar[Answer] = "token"

    multiplier: float = 1.0
    """What the stream is multiplied by before a head that can be tied scores it. An init scheme may set it (muP)."""

    def __init__(self, vocab_size: int, d_model: int, /) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """(B, T, D) -> logits: (B, T, V) for each token, or (B, C) for each row"""

    @abstractmethod
    def loss(self, x: Tensor, layout: Layout, targets: Tensor) -> Tensor:
        """Cross-entropy in nats, averaged over the targets that are not ``IGNORE``; a scalar.

        Never holds the logits of all tokens at once where there are many. ``targets``: (B, T), or
        (B,) where the head scores whole rows.
        """

    def tie(self, embedding: Embedding) -> None:
        """Share the embedding's table.

        Raises:
            ValueError: This head has no table that could be shared, or the shapes differ.
        """
        raise ValueError(f"{type(self).__name__} must not be tied: it has no table to share. Set model.tie=false.")

    def stand_alone(self) -> None:
        """Called where the embedding's table is not shared.

        Raises:
            ValueError: This head has no table of its own.
        """

    def cost(self, length: int) -> Cost:
        """What one row of ``length`` tokens costs; the base has every ``nn.Linear`` see each token once."""
        return _linear_cost(self, length)


def _linear_cost(block: nn.Module, length: int) -> Cost:
    weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
    return Cost(sum(p.numel() for p in block.parameters()), 2 * length * weights, 0, steps=1)


IGNORE = -100
"""A target that is not asked for."""


class Model(nn.Module, ABC):
    """Tokens to logits."""

    families: ClassVar[tuple[str, ...]] = ("model",)

    head: Head

    @abstractmethod
    def features(
        self, tokens: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        """Everything but the head. (B, T) int64 -> (B, T, D)"""

    def forward(
        self, tokens: Tensor, layout: Layout, state: State | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, State | None]:
        """(B, T) int64 -> logits (B, T, V), and the state that now includes the tokens."""
        x, state = self.features(tokens, layout, state, memory)
        return self.head(x, layout), state

    @abstractmethod
    def empty_state(self, rows: int, capacity: int) -> State:
        """The state before the first token."""

    @abstractmethod
    def cost(self, length: int) -> Cost:
        """What one row of ``length`` tokens costs (a source of the same length with it, if any)."""


class Init(ABC):
    """How parameters start. Called once on a whole model, after it is built.

    It starts the weights and biases of ``nn.Linear`` and ``nn.Embedding``: a parameter that needs a start of its own
    is an ``nn.Parameter`` of its own block. Depth narrows every parameter whose role is writer, whoever started it.
    """

    families: ClassVar[tuple[str, ...]] = ("init",)

    @abstractmethod
    def __call__(self, model: nn.Module) -> None: ...
