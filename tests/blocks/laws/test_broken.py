"""The laws name what is broken: each block here breaks one promise, and the law of that promise says so."""

import math
from typing import Annotated, Literal

import pytest
import torch
from torch import nn

from blocks.cases import cases, mask_of
from blocks.contracts import Attention, Cost, Init, Mask, Norm, Normaliser, Score, State, placed
from blocks.laws import Broken, hides_what_its_mask_hides, laws_of, uses_its_position
from blocks.laws.check import BLOCKS, check
from blocks.laws.effects import ALONE, effect, observe, silent
from registry import REGISTRY, SameNumbers, factory, register

D = 64


@pytest.fixture
def registered():
    """Registers blocks for one test."""
    before = dict(REGISTRY._entries)
    yield register
    REGISTRY._entries.clear()
    REGISTRY._entries.update(before)


def broken_by(block):
    """The names of the laws that a block breaks."""
    found = []
    for law in laws_of(block):
        if law.__name__ == "compiles":
            continue
        torch.manual_seed(0)
        try:
            law(block)
        except Broken:
            found.append(law.__name__)
        except ValueError:  # it refuses what the law needs
            continue
    return found


# A position ----------------------------------------------------------------------------------------------------------


class Deaf(Attention[State]):
    """Plain attention that takes its position as asked: builds it, keeps it, or neither; and never calls it."""

    builds, keeps = True, True

    def __init__(self, d_model, mask, position=None, /):
        super().__init__(d_model, mask, position)
        self.to_qkv = nn.Linear(d_model, 3 * d_model)
        built = position(1, d_model) if position is not None and self.builds else None
        self.position = built if self.keeps else None

    def forward(self, x, layout, state=None, memory=None):
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        scores = (q @ k.mT / math.sqrt(self.d_model)).masked_fill(~self.mask(layout, layout), -torch.inf)
        return scores.softmax(-1).nan_to_num() @ v, None

    def empty_state(self, rows, capacity):
        raise ValueError("there is no state.")

    def cost(self, length):
        return Cost(0, 0, 0, 1, 1)


@pytest.mark.parametrize("position", ["rope", "alibi", "t5", "kerple", "fire", "shaw", "transformer_xl", "xpos"])
def test_attention_that_ignores_its_position_is_named(position):
    mixer = placed(Deaf, D, Mask(True), factory(f"position/{position}")).double()
    with pytest.raises(
        Broken, match=r"^the position \w+ must change the output, but without it the output is the same\.$"
    ):
        uses_its_position(mixer)


def test_attention_that_has_no_use_for_a_position_is_refused_where_it_is_given_one():
    class Deafer(Deaf):
        builds = False

    class Forgetful(Deaf):
        keeps = False

    rope, none = factory("position/rope"), factory("position/none")
    for kind, what in ((Deafer, "builds"), (Forgetful, "keeps")):
        sentence = rf"^position must be none for {kind.__name__}, which {what} no position, but got Rope\. "
        with pytest.raises(ValueError, match=sentence):
            placed(kind, D, Mask(True), rope)
        placed(kind, D, Mask(True), none)
        placed(kind, D, Mask(True), None)


def test_a_layer_refuses_it_as_well(registered):
    class Deafer(Deaf):
        """Takes no position.

        Args:
        """

        builds = False

    registered("attention/deafer")(Deafer)
    from blocks.cases import stack_of

    with pytest.raises(ValueError, match=r"position must be none for Deafer, which builds no position, but got Rope"):
        stack_of(mixer="attention/deafer")
    stack_of(mixer="attention/deafer", position="position/none")


def test_check_names_it_under_every_position(registered):
    registered("attention/deaf")(Deaf)
    bench = BLOCKS._replace(laws_of=lambda block: [uses_its_position])
    broken = {v.case for v in check("attention/deaf", bench) if v.law == "uses_its_position" and v.ok is False}
    assert {"deaf position/rope causal", "deaf position/alibi causal", "deaf mask/causal causal"} <= broken
    assert "deaf position/none causal" not in broken


class Wide(Deaf):
    """Reads everything, whatever its mask hides."""

    def forward(self, x, layout, state=None, memory=None):
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        return (q @ k.mT / math.sqrt(self.d_model)).softmax(-1) @ v, None


def test_attention_that_ignores_its_mask_is_named():
    window = mask_of("mask/window", False)
    hides_what_its_mask_hides(Deaf(D, window).double())
    sentence = (
        r"^the mask hides \d+ pairs of tokens that change each other, the first: token 0 must not see token 4, but does"
    )
    with pytest.raises(Broken, match=sentence):
        hides_what_its_mask_hides(Wide(D, window).double())


# Normalisers, scores, inits ------------------------------------------------------------------------------------------


class SeesAll(Normaliser):
    """Ignores what is allowed."""

    def forward(self, scores, allowed):
        return scores.softmax(-1)


class Halves(Normaliser):
    """Adds up to a half."""

    def forward(self, scores, allowed):
        return super().forward(scores, allowed) / 2


class LeaksAfterwards(Normaliser):
    """Hides keys after dividing by the weight of all: what is hidden changes the rest."""

    total = "at most one"

    def forward(self, scores, allowed):
        weights = scores.softmax(-1)
        return weights if allowed is None else weights.masked_fill(~allowed, 0.0)


class Overflows(Normaliser):
    """Divides exponentials, without taking the largest out."""

    def forward(self, scores, allowed):
        e = scores.exp() if allowed is None else scores.exp().masked_fill(~allowed, 0.0)
        return e / e.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (SeesAll, "weighs_only_what_is_allowed"),
        (Halves, "adds_up_as_declared"),
        (LeaksAfterwards, "weighs_only_what_is_allowed"),
        (Overflows, "adds_up_as_declared"),
    ],
)
def test_a_broken_normaliser_is_named(kind, law):
    assert law in broken_by(kind(4).double())


def test_a_decoder_with_a_normaliser_that_sees_the_future_is_named(registered):
    registered("normaliser/sees_all")(SeesAll)
    bench = BLOCKS._replace(laws_of=lambda block: [law for law in laws_of(block) if law.__name__ != "compiles"])
    broken = {(v.law, v.case) for v in check("normaliser/sees_all", bench) if v.ok is False}
    assert ("hides_the_future", "mha sees_all causal") in broken
    assert ("weighs_only_what_is_allowed", "sees_all") in broken


class Unrotated(Score):
    """Forgets to rotate."""

    def prepare(self, x, role, rotate):
        return x


class Centred(Score):
    """Subtracts the mean over the tokens."""

    def prepare(self, x, role, rotate):
        return rotate(x - x.mean(1, keepdim=True))


@pytest.mark.parametrize(("kind", "law"), [(Unrotated, "rotates_once"), (Centred, "prepares_each_token_alone")])
def test_a_broken_score_is_named(kind, law):
    assert law in broken_by(kind(4, 16).double())


class Partly(Init):
    """Starts linear layers only."""

    def __call__(self, model):
        for part in model.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


class Greedy(Init):
    """Starts everything, norms as well."""

    def __call__(self, model):
        for p in model.parameters():
            nn.init.normal_(p, std=0.02)


class Constant(Init):
    """Starts everything alike, whatever the seed."""

    def __call__(self, model):
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                for p in part.parameters():
                    nn.init.constant_(p, 0.01)


@pytest.mark.parametrize("kind", [Partly, Greedy, Constant])
def test_a_broken_init_is_named(kind):
    assert broken_by(kind()) == ["starts_linears_and_embeddings"]


# Choices -------------------------------------------------------------------------------------------------------------


class Choosy(Norm):
    """A norm with choices of many kinds.

    Args:
        eps: Acts on the output.
        idle: Does nothing.
        drop: Acts while training.
        mode: Turns ``power`` on.
        power: Acts where ``mode`` is on.
    """

    def __init__(self, d_model: int, /, *, eps: float = 1e-5, idle: int = 3, drop: float = 0.0, mode: str = "off"):
        super().__init__(d_model)
        self.eps = eps
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        return self.drop(x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt())


def alone(name):
    """The first case: enough for a norm, and quick."""
    return list(cases(name))[:1]


def test_a_choice_that_changes_nothing_is_named(registered):
    registered("norm/choosy")(Choosy)
    assert "changes its output" in effect("norm/choosy", "eps", alone, observe).alone
    assert "changes its training" in effect("norm/choosy", "drop", alone, observe).alone
    said = [v for v in check("norm/choosy", BLOCKS._replace(cases=alone)) if not v.ok]
    assert [(v.law, v.case) for v in said] == [("every choice has an effect", key) for key in ("idle", "mode")]
    assert said[0].says.startswith("no other value changes parameters, outputs, training or cost in any case tried.")


class Powered(Norm):
    """A norm with a choice that acts beside another, and one that changes no number by its nature.

    Args:
        mode: Whether ``power`` acts.
        power: What the output is raised to.
        chunk: How much is computed at once.
    """

    def __init__(
        self,
        d_model: int,
        /,
        *,
        mode: Literal["off", "on"] = "off",
        power: float = 3.0,
        chunk: Annotated[int, SameNumbers("the same is computed, in other portions")] = 8,
    ):
        super().__init__(d_model)
        self.power = power if mode == "on" else 1.0

    def forward(self, x):
        return x.sign() * x.abs() ** self.power


def test_a_choice_that_acts_beside_another_must_be_refused_without_it(registered):
    registered("norm/powered")(Powered)
    ((key, says),) = silent("norm/powered", alone, observe)
    assert key == "power"
    assert says.startswith(ALONE)
    assert effect("norm/powered", "power", alone, observe).beside is not None


def test_a_choice_that_declares_that_it_changes_no_number_is_not_named(registered):
    registered("norm/powered")(Powered)
    assert REGISTRY["norm/powered"].choices["chunk"].same_numbers == "the same is computed, in other portions"
    assert "chunk" not in dict(silent("norm/powered", alone, observe))
    assert REGISTRY["attention/gqa"].choices["backend"].same_numbers


def test_a_block_that_is_refused_everywhere_is_named(registered):
    @registered("norm/never")
    class Never(Norm):
        """Never works."""

        def __init__(self, d_model: int, /):
            raise ValueError("d_model must be odd, but got 64.")

    assert [v.ok for v in check("norm/never")][-1] is False
