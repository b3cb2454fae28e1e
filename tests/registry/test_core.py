"""Holds the table to its promises: names, schemas, complete specs, and every complaint at once."""

from __future__ import annotations

import abc
from typing import ClassVar

import pytest

from blocks.contracts import AttentionPosition, EmbeddingPosition
from registry import REGISTRY as OURS
from registry import BlockwrightError, ConfigError, Factory, Registry
from registry.core import FACTS
from registry.errors import CheckpointError, DataError, MachineError, Refusals
from tests.registry import toys
from tests.registry.toys import REGISTRY

DATA = "(tokenizer, objective, max_length, seed)"


class Tool:
    """Something to hold.

    Args:
        size: How long
            it is.
        left, right: Hands.
    """

    families: ClassVar[tuple[str, ...]] = ("tool",)

    def __init__(self, d_model: int, /, *, size: int, left: bool = False, right: bool = True) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, but got {size}.")
        self.held = (d_model, size, left, right)


class Box:
    """Something to put tools in."""

    families: ClassVar[tuple[str, ...]] = ("box",)

    def __init__(self, d_model: int, /, *, tool: Factory[Tool], more: list[Factory[Tool]] | None = None) -> None:
        self.tools = [make(d_model) for make in (tool, *(more or []))]


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register("tool/hammer", size=3)(Tool)
    made.register("tool/saw")(Tool)
    made.register("box/plain")(Box)
    return made


def said(raised: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return str(raised.value).splitlines()


def test_the_keyword_only_part_is_the_schema(registry):
    entry = registry["tool/hammer"]
    assert entry.facts == ("d_model",)
    assert list(entry.choices) == ["size", "left", "right"]
    assert entry.choices["size"].default == 3
    assert entry.choices["size"].doc == "How long it is."
    assert entry.choices["right"].doc == "Hands."
    assert entry.doc == "Something to hold."
    assert registry["tool/saw"].choices["size"].default == "???"


def test_choices_that_are_blocks_know_their_families(registry):
    choices = registry["box/plain"].choices
    assert choices["tool"].families == choices["more"].families == ("tool",)


def test_a_factory_binds_choices_and_leaves_facts_open(registry):
    make = registry.factory({"name": "plain", "tool": "hammer", "more": [{"name": "saw", "size": 5}]}, ("box",))
    assert [t.held for t in make(64).tools] == [(64, 3, False, True), (64, 5, False, True)]


def test_a_spec_is_completed_with_full_names_and_every_choice(registry):
    assert registry.complete({"name": "plain", "tool": "hammer"}, ("box",)) == {
        "name": "box/plain",
        "tool": {"name": "tool/hammer", "size": 3, "left": False, "right": True},
        "more": None,
    }


def test_completing_twice_changes_nothing(registry):
    once = registry.complete({"name": "plain", "tool": "hammer"}, ("box",))
    assert registry.complete(once) == once


def test_a_refusal_at_building_says_where_it_stands(registry):
    make = registry.factory({"name": "box/plain", "tool": {"name": "saw", "size": -1}}, path="box")
    with pytest.raises(ConfigError) as refusal:
        make(64)
    assert said(refusal) == ["box.tool: size must not be negative, but got -1."]


def test_a_refusal_says_where_a_person_would_change_it(registry):
    spec = {"name": "box/plain", "tool": "hammer", "more": [{"name": "saw", "size": -1}]}
    make = registry.factory(spec, path="model.box", origins={"model.box": "box", "model.box.more.0": "saws (here)"})
    with pytest.raises(ConfigError) as refusal:
        make(64)
    assert said(refusal) == ["saws (here): size must not be negative, but got -1."]


class Outer:
    """Holds a part that the machine may refuse."""

    families = ("outer",)

    def __init__(self, *, part: Factory[Refusing]) -> None:
        refusals = Refusals()
        self.parts = [refusals.build(part) for _ in range(2)]
        refusals.judge()


class Refusing:
    """Refuses to be built."""

    families = ("refusing",)
    error: Exception

    def __init__(self) -> None:
        raise self.error


class FarError(DataError):
    """A kind of a plugin's own."""

    status = 77


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (MachineError("it must be there, but is not"), MachineError, 5),
        (DataError("it must be there, but is not"), DataError, 3),
        (CheckpointError("it must be there, but is not."), CheckpointError, 4),
        (ConfigError("it must be there, but is not."), ConfigError, 2),
        (FarError("it must be there, but is not."), FarError, 77),
        (ValueError("it must be there, but is not"), ConfigError, 2),
    ],
)
def test_a_refusal_keeps_its_status_and_says_once_where_it_stands(registry, monkeypatch, error, kind, status):
    registry.register("outer/it")(Outer)
    registry.register("refusing/it")(Refusing)
    monkeypatch.setattr(Refusing, "error", error, raising=False)
    make = registry.factory({"name": "outer/it", "part": "it"}, path="outer")
    with pytest.raises(BlockwrightError) as refusal:
        make()
    assert (type(refusal.value), refusal.value.status) == (kind, status)
    assert said(refusal) == ["outer.part: it must be there, but is not."]


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda d_model, *, width=1: None, "d_model"),
        (lambda d_model, /, depth=1, **more: None, "depth, **more"),
    ],
)
def test_an_argument_that_is_neither_a_fact_nor_a_choice_is_refused(registry, made, named):
    with pytest.raises(ConfigError) as refusal:
        registry.register("tool/loose")(made)
    assert str(refusal.value) == (
        f"{__file__}:{made.__code__.co_firstlineno}: each argument of 'tool/loose' must stand before `/` (what the "
        f"parent gives) or behind `*` (what a person chooses), but got {named}. "
        "Write it as def __init__(self, d_model, /, *, width=64)."
    )
    assert "tool/loose" not in registry


@pytest.mark.parametrize(
    ("name", "made", "given", "own"),
    [
        ("attention/mine", lambda d_model, /: None, "(d_model, mask, position)", "(d_model)"),
        ("recurrent/mine", lambda d_model, mask, extra, /: None, "(d_model, mask)", "(d_model, mask, extra)"),
        ("optimizer/mine", lambda model, /, *, lr=1.0: None, "nothing", "(model)"),
        ("data/mine", lambda a, b, c, d, e, /, *facts: None, DATA, "(a, b, c, d, e, *facts)"),
        ("norm/mine", lambda *, eps=1.0: None, "(d_model)", "nothing"),
        ("position/mine", lambda d_model, /: None, "(n_heads, head_dim) or (d_model, max_length)", "(d_model)"),
    ],
)
def test_a_constructor_that_can_not_take_what_its_family_is_given_is_refused(name, made, given, own):
    with pytest.raises(ConfigError) as refusal:
        Registry().register(name)(made)
    first = "" if given == "nothing" else given.partition(")")[0].strip("(")
    write = f"{first}, /, *" if first else "*"
    assert str(refusal.value) == (
        f"{__file__}:{made.__code__.co_firstlineno}: {name!r} must take what a block of its family is given, {given}, "
        f"before `/`, but got {own}. Write it as def __init__(self, {write}, width=64)."
    )


@pytest.mark.parametrize(
    ("name", "made", "facts"),
    [
        ("attention/mine", lambda *facts, width=1: None, ("d_model", "mask", "position")),
        ("attention/mine", lambda width, /, *facts: None, ("width", "mask", "position")),
        ("norm/mine", lambda d_model, more=1, /: None, ("d_model", "more")),
        ("tool/mine", lambda *facts, width=1: None, ()),
    ],
)
def test_a_constructor_may_take_facts_by_other_names_or_all_at_once(name, made, facts):
    registry = Registry()
    registry.register(name)(made)
    assert registry[name].facts == facts


def test_of_two_kinds_of_facts_a_base_class_says_which():
    class Waves(EmbeddingPosition):
        def __init__(self, *facts, base: float = 1.0) -> None: ...

        def embed(self, x, layout): ...

    class Turns(AttentionPosition):
        def __init__(self, *facts, base: float = 1.0) -> None: ...

    registry = Registry()
    registry.register("position/waves")(Waves)
    registry.register("position/turns")(Turns)
    assert registry["position/waves"].facts == ("d_model", "max_length")
    assert registry["position/turns"].facts == ("n_heads", "head_dim")


def test_our_blocks_take_what_their_families_are_given():
    for entry in map(OURS.__getitem__, OURS.names()):
        assert entry.facts in FACTS[entry.family], entry.name


def test_a_class_that_leaves_a_promise_open_is_refused(registry):
    class Promise(abc.ABC):
        @abc.abstractmethod
        def cost(self): ...

    class Half(Promise): ...

    promises = "'tool/half' must define all that its family promises, but has no cost."
    with pytest.raises(ConfigError, match=rf"test_core\.py:\d+: {promises}$"):
        registry.register("tool/half")(Half)


def test_everything_that_is_wrong_is_said_at_once(registry):
    spec = {"name": "plain", "tool": {"name": "saw", "left": "yes", "sizes": 3}, "more": ["hamer", {"name": "saw"}]}
    with pytest.raises(ConfigError) as refusal:
        registry.factory(spec, ("box",), "box")
    assert said(refusal) == [
        "box.tool.sizes: saw has no choice 'sizes'. Did you mean 'size'? It has: size, left, right.",
        "box.tool.size: saw needs 'size' (How long it is.); it has no default.",
        "box.tool.left: must be true or false, but got 'yes'.",
        "box.more: no block is named 'hamer'. Did you mean 'hammer'? There are: hammer, saw. "
        "A block of your own must be listed in plugins=[...].",
        "box.more.size: saw needs 'size' (How long it is.); it has no default.",
    ]


def test_a_choice_of_another_block_is_pointed_to():
    with pytest.raises(ConfigError) as refusal:
        REGISTRY.factory({"name": "mha", "rank": 2}, ("attention",), "attention")
    assert said(refusal) == [
        "attention.rank: mha has no choice 'rank'. It has: n_heads, n_kv_heads, dropout, backend. "
        "'rank' belongs to: linformer."
    ]


def test_a_name_of_another_family_is_not_guessed_at():
    with pytest.raises(ConfigError) as refusal:
        REGISTRY.find("rope", ("norm",), "norm")
    assert said(refusal) == [
        "norm: position/rope is not norm. There are: layer, rms. A block of your own must be listed in plugins=[...]."
    ]


def test_a_spec_without_a_name_is_refused(registry):
    with pytest.raises(ConfigError) as refusal:
        registry.factory({"size": 3}, ("tool",), "tool")
    assert said(refusal) == ["tool: a block must be a name or a mapping with a 'name', but got {'size': 3}."]


def test_a_name_is_free_or_refused_with_both_places(registry):
    class Other(Tool): ...

    with pytest.raises(ConfigError) as refusal:
        registry.register("tool/saw")(Other)
    message = str(refusal.value)
    holder = registry["tool/saw"].where
    assert message.startswith(f"the name 'tool/saw' must be free, but {holder} has it and {__file__}:")
    assert message.endswith(" asks for it. Pick another name, or pass override=True to replace it.")


def test_a_name_can_be_taken_on_purpose(registry):
    class Other(Tool): ...

    registry.register("tool/saw", override=True, size=1)(Other)
    assert registry["tool/saw"].constructor is Other


def test_a_reloaded_module_may_enter_its_own_again(registry):
    again = type("Tool", (), {"__init__": Tool.__init__, "__module__": Tool.__module__, "__qualname__": "Tool"})
    registry.register("tool/saw", size=9)(again)
    assert registry["tool/saw"].choices["size"].default == 9


def test_mixers_share_their_names():
    registry = Registry()
    registry.register("attention/same")(toys.SoftmaxAttention)
    with pytest.raises(ConfigError) as refusal:
        registry.register("recurrent/same")(toys.WordWindow)
    message = str(refusal.value)
    assert f"{toys.__file__}:" in message
    assert "has it as 'attention/same', and all mixers share one slot and" in message
    registry.register("norm/same")(toys.SomeNorm)  # norms do not share theirs


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Tool", "a block's name must be 'family/name' in lower case, but got 'Tool'."),
        ("a/b/c", "a block's name must be 'family/name' in lower case, but got 'a/b/c'."),
        ("mask/auto", "a block must not be called 'auto': it leaves the choice to the blocks. Got 'mask/auto'."),
        ("norm/off", "a block must not be called 'off': it is not text in a config. Got 'norm/off'."),
        (
            "linear/attention",
            "a block must not be called 'attention': it says: whatever the attention slot holds. "
            "Got 'linear/attention'.",
        ),
    ],
)
def test_a_name_that_can_not_be_written_is_refused(registry, name, sentence):
    with pytest.raises(ConfigError) as refusal:
        registry.register(name)
    assert str(refusal.value) == sentence


def test_a_default_for_a_choice_that_is_not_there_is_refused(registry):
    with pytest.raises(
        ConfigError, match=r"^'tool/axe' has no choice 'siz' to give a default to. Did you mean 'size'\?"
    ):
        registry.register("tool/axe", siz=3)(Tool)
