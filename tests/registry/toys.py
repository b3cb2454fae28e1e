"""Blocks that are nothing but their constructors, in a registry of their own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from registry import Factory, Registry

REGISTRY = Registry()
register = REGISTRY.register


class Toy:
    """Keeps what it is given."""

    families: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, family: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if family:
            cls.families = (family,)


class Mixer(Toy):
    families = ("attention", "linear", "recurrent", "convolution")


class Attention(Mixer):
    families = ("attention",)
    prefers: ClassVar[dict[str, str]] = {"position": "rope"}


class Position(Toy, family="position"): ...


class Mask(Toy, family="mask"): ...


class Norm(Toy, family="norm"): ...


class Ffn(Toy, family="ffn"): ...


class Residual(Toy, family="residual"): ...


class Layer(Toy, family="layer"): ...


class Stack(Toy, family="stack"): ...


class Embedding(Toy, family="embedding"): ...


class Head(Toy, family="head"): ...


class Optimizer(Toy, family="optimizer"): ...


@register("attention/mha")
@register("attention/gqa", n_kv_heads=2)
class SoftmaxAttention(Attention):
    """Every query looks at every key.

    Args:
        n_heads: How many queries a token asks.
        n_kv_heads: How many keys a token shows. None: as many.
        dropout: Probability of dropping a weight.
        backend: What computes it.
    """

    def __init__(
        self,
        d_model: int,
        mask: Mask,
        position: Any,
        /,
        *,
        n_heads: int = 8,
        n_kv_heads: int | None = None,
        dropout: float = 0.0,
        backend: Literal["auto", "eager", "sdpa"] = "auto",
    ) -> None:
        if d_model % n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, but got {d_model} and {n_heads}.")


@register("attention/linformer")
class Linformer(Attention):
    """Keys are projected along time.

    Args:
        rank: How many are left.
    """

    def __init__(self, d_model: int, mask: Mask, position: Any, /, *, rank: int = 16) -> None: ...


@register("recurrent/lstm")
class LSTM(Mixer):
    """A cell.

    Args:
        d_hidden: Its width.
    """

    def __init__(self, d_model: int, mask: Mask, /, *, d_hidden: int | None = None) -> None: ...


@register("convolution/word_window")
class WordWindow(Mixer):
    """A few words.

    Args:
        size: How many.
    """

    prefers: ClassVar[dict[str, str]] = {"position": "sinusoidal"}

    def __init__(self, d_model: int, mask: Mask, /, *, size: int = 3) -> None: ...


@register("position/none")
class NoPosition(Position):
    """Nothing."""

    def __init__(self, n_heads: int, head_dim: int, /) -> None: ...


@register("position/rope")
class Rope(Position):
    """Turns queries and keys.

    Args:
        base: Longest wave.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, base: float = 10000.0) -> None: ...


@register("position/alibi")
class Alibi(Position):
    """Nearer is dearer."""

    def __init__(self, n_heads: int, head_dim: int, /) -> None: ...


@register("position/sinusoidal")
class Sinusoidal(Position):
    """Adds waves.

    Args:
        base: Longest wave.
    """

    def __init__(self, d_model: int, max_length: int, /, *, base: float = 10000.0) -> None: ...


@register("position/sum")
class Sum(Position):
    """Several at once.

    Args:
        parts: Which.
    """

    def __init__(self, n_heads: int, head_dim: int, /, *, parts: list[Factory[Position]]) -> None: ...


@register("mask/full")
class Full(Mask):
    """Hides nothing."""

    def __init__(self, causal: bool, /) -> None:
        if causal:
            raise ValueError("a decoder must hide the future, but full hides nothing. Choose causal.")


@register("mask/causal")
class Causal(Mask):
    """Hides the future."""

    def __init__(self, causal: bool, /) -> None: ...


@register("mask/window")
class Window(Mask):
    """Hides what is far.

    Args:
        size: How far one sees.
    """

    def __init__(self, causal: bool, /, *, size: int = 16) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, but got {size}.")


@register("mask/and")
class And(Mask):
    """What all of several show.

    Args:
        parts: Which.
    """

    def __init__(self, causal: bool, /, *, parts: list[Factory[Mask]]) -> None: ...


@register("norm/rms")
@register("norm/layer")
class SomeNorm(Norm):
    """A common scale.

    Args:
        eps: Added to the variance.
    """

    def __init__(self, d_model: int, /, *, eps: float = 1e-6) -> None: ...


@register("ffn/none")
class NoFfn(Ffn):
    """Nothing."""

    def __init__(self, d_model: int, /) -> None: ...


@register("ffn/mlp")
class Mlp(Ffn):
    """Two matrices.

    Args:
        d_ff: Hidden width. None: four times as wide.
        activation: What is between them.
    """

    def __init__(
        self, d_model: int, /, *, d_ff: int | None = None, activation: Literal["relu", "gelu"] = "gelu"
    ) -> None: ...


@register("residual/none")
class NoResidual(Residual):
    """Nothing."""

    def __init__(self, d_model: int, site: Any, /) -> None: ...


@register("residual/pre_norm")
class PreNorm(Residual):
    """Norm first.

    Args:
        norm: Which.
        dropout: Probability of dropping a feature.
    """

    def __init__(self, d_model: int, site: Any, /, *, norm: Factory[Norm], dropout: float = 0.0) -> None: ...


@register("layer/sequential")
class Sequential(Layer):
    """One after another.

    Args:
        mixer, mask, position, ffn, residual, cross_attention: Its parts.
    """

    def __init__(
        self,
        d_model: int,
        site: Any,
        /,
        *,
        mixer: Factory[Mixer],
        mask: Factory[Mask],
        position: Factory[Position] | None = None,
        ffn: Factory[Ffn],
        residual: Factory[Residual],
        cross_attention: Factory[Attention] | None = None,
    ) -> None: ...


@register("layer/parallel")
class Parallel(Layer):
    """Side by side; reads no memory.

    Args:
        mixer, mask, position, ffn, residual: Its parts.
    """

    def __init__(
        self,
        d_model: int,
        site: Any,
        /,
        *,
        mixer: Factory[Mixer],
        mask: Factory[Mask],
        position: Factory[Position] | None = None,
        ffn: Factory[Ffn],
        residual: Factory[Residual],
    ) -> None: ...


@register("stack/plain")
class Plain(Stack):
    """Layers.

    Args:
        layers: Which.
        position: At the foot.
        norm: At the top.
    """

    def __init__(
        self,
        d_model: int,
        site: Any,
        /,
        *,
        layers: list[Factory[Layer]],
        norm: Factory[Norm],
        position: list[Factory[Position]] = [],  # noqa: B006
    ) -> None: ...


@register("stack/looped")
class Looped(Plain):
    """Layers, again and again.

    Args:
        layers: Which.
        position: At the foot.
        norm: At the top.
        loops: How often.
    """

    def __init__(
        self,
        d_model: int,
        site: Any,
        /,
        *,
        layers: list[Factory[Layer]],
        norm: Factory[Norm],
        position: list[Factory[Position]] = [],  # noqa: B006
        loops: int = 2,
    ) -> None: ...


@register("embedding/token")
class Token(Embedding):
    """A vector a token."""

    def __init__(self, vocab_size: int, d_model: int, /) -> None: ...


@register("head/linear")
class Linear(Head):
    """A score a token.

    Args:
        bias: Whether one is added.
    """

    def __init__(self, vocab_size: int, d_model: int, /, *, bias: bool = False) -> None: ...


@register("optimizer/adamw")
class AdamW(Optimizer):
    """Steps.

    Args:
        lr: How long.
    """

    def __init__(self, *, lr: float = 1e-3) -> None: ...


class Model(Toy, family="model"): ...


@register("model/decoder_only")
class DecoderOnly(Model):
    """Text.

    Args:
        d_model: Width.
        embedding, decoder, head: Its parts.
    """

    prefers: ClassVar[dict[str, Any]] = {"objective": "next_token"}

    def __init__(
        self,
        vocab_size: int,
        /,
        *,
        d_model: int = 64,
        embedding: Factory[Embedding] = "token",  # type: ignore[assignment]
        decoder: Factory[Stack],
        head: Factory[Head] = "linear",  # type: ignore[assignment]
    ) -> None: ...


@register("model/encoder_only")
class EncoderOnly(Model):
    """Text both ways.

    Args:
        d_model: Width.
        embedding, encoder, head: Its parts.
    """

    prefers: ClassVar[dict[str, Any]] = {"objective": "masked_token"}

    def __init__(
        self,
        vocab_size: int,
        /,
        *,
        d_model: int = 64,
        embedding: Factory[Embedding] = "token",  # type: ignore[assignment]
        encoder: Factory[Stack],
        head: Factory[Head] = "linear",  # type: ignore[assignment]
    ) -> None: ...


@register("model/encoder_decoder")
class EncoderDecoder(Model):
    """Reads one text, writes another.

    Args:
        d_model: Width.
        embedding, encoder, decoder, head: Its parts.
    """

    prefers: ClassVar[dict[str, Any]] = {"objective": {"text": "span_corruption", "pairs": "next_token"}}

    def __init__(
        self,
        vocab_size: int,
        /,
        *,
        d_model: int = 64,
        embedding: Factory[Embedding] = "token",  # type: ignore[assignment]
        encoder: Factory[Stack],
        decoder: Factory[Stack],
        head: Factory[Head] = "linear",  # type: ignore[assignment]
    ) -> None: ...


class Objective(Toy, family="objective"): ...


@register("objective/next_token")
@register("objective/masked_token")
@register("objective/span_corruption")
class SomeObjective(Objective):
    """A question."""

    def __init__(self, tokenizer: Any, max_length: int, shape: Any, gives: Any, /) -> None: ...


class Data(Toy, family="data"): ...


@register("data/text")
class Text(Data):
    """Files.

    Args:
        path: Which.
    """

    gives: ClassVar[str] = "text"

    def __init__(self, tokenizer: Any, objective: Any, max_length: int, seed: int, /, *, path: str) -> None: ...


@register("data/copy")
class Copy(Data):
    """Made up."""

    gives: ClassVar[str] = "pairs"

    def __init__(self, tokenizer: Any, objective: Any, max_length: int, seed: int, /) -> None: ...


class Callback(Toy, family="callback"): ...


@register("callback/early_stopping")
class EarlyStopping(Callback):
    """Stops.

    Args:
        patience: When.
    """

    def __init__(self, *, patience: int = 3) -> None: ...
