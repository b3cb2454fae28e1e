"""Every parameter of every block has a role, declared and not guessed from names or shapes; and who reads roles."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from blocks.cases import built, cases
from blocks.contracts import DECAYED, Cost, Ffn, Mask, Norm, Site, declare, role_of, roles_of
from blocks.init.gpt2 import Gpt2
from blocks.laws import Broken, gives_every_parameter_a_role, writes_with_its_writers
from blocks.layer.sequential import Sequential
from blocks.mask.causal import Causal
from blocks.norm.rms import RMSNorm
from blocks.residual.pre_norm import PreNorm
from blocks.stack.plain import Layers
from registry import REGISTRY, factory
from training.optimizer.adamw import AdamW

D = 64


def roles(block):
    return {held.name: held.role for held in roles_of(block)}


def decayed(model):
    """The names of the parameters that an optimizer shrinks."""
    groups = AdamW(weight_decay=0.2)(model).param_groups
    shrunk = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in shrunk}


class Own(nn.Module):
    """A parameter of each shape, with names that say the wrong thing."""

    def __init__(self):
        super().__init__()
        self.to_out = nn.Parameter(torch.ones(3, 3))
        self.bias = nn.Parameter(torch.ones(3))
        self.weight = nn.Parameter(torch.ones(3, 3))


def test_a_role_is_what_was_declared_whatever_the_name_and_the_shape():
    own = declare(Own(), to_out="table", bias="matrix")
    assert roles(own) == {"to_out": "table", "bias": "matrix", "weight": None}
    assert decayed(own) == {"bias"}


def test_a_role_survives_a_copy_a_cast_and_another_device():
    own = declare(Own(), to_out="gain").double()
    assert roles(copy.deepcopy(own)) == roles(own.to("meta")) == {"to_out": "gain", "bias": None, "weight": None}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(2, 3), {"weight": "matrix", "bias": "bias"}),
        (nn.Conv1d(2, 2, 3), {"weight": "matrix", "bias": "bias"}),
        (nn.Embedding(3, 2), {"weight": "table"}),
        (nn.LayerNorm(2), {"weight": "gain", "bias": "bias"}),
        (nn.RMSNorm(2), {"weight": "gain"}),
        (nn.BatchNorm1d(2), {"weight": "gain", "bias": "bias"}),
        (
            nn.GRU(2, 2),
            {"weight_ih_l0": "matrix", "weight_hh_l0": "matrix", "bias_ih_l0": "bias", "bias_hh_l0": "bias"},
        ),
        (
            nn.MultiheadAttention(2, 1, add_bias_kv=True),
            {
                "in_proj_weight": "matrix",
                "in_proj_bias": "bias",
                "bias_k": "bias",
                "bias_v": "bias",
                "out_proj.weight": "matrix",
                "out_proj.bias": "bias",
            },
        ),
    ],
    ids=lambda m: type(m).__name__,
)
def test_torchs_modules_have_roles_by_their_type(module, expected):
    assert roles(module) == expected


def test_what_a_subclass_adds_to_one_of_torchs_modules_has_none():
    class Adapted(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.narrow = nn.Parameter(torch.zeros(2, 1))
            self.extra_weight = nn.Parameter(torch.zeros(2))
            self.weight_bias = nn.Parameter(torch.zeros(2))

    added = {"narrow": None, "extra_weight": None, "weight_bias": None}
    assert roles(Adapted()) == {"weight": "matrix", "bias": "bias", **added}


def test_what_an_embedding_and_a_head_share_is_one_table():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 3, bias=False)  # comes first, and would be a matrix
            self.table = nn.Embedding(3, 2)
            self.head.weight = self.table.weight

    assert roles(Shared()) == {"head.weight": "table"}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            {"to_out": "weight"},
            "the role of to_out must be one of writer, value, matrix, table, gain, bias, dynamics, ",
        ),
        (
            {"to_in": "gain"},
            "a role must belong to a parameter that Own holds, but got 'to_in'. Make the parameter first",
        ),
        ({"forward": "gain"}, "a role must belong to a parameter that Own holds, but got 'forward'."),
    ],
)
def test_refuses(declared, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        declare(Own(), **declared)


def test_an_absent_parameter_may_be_declared():
    own = Own()
    own.bias = None
    assert roles(declare(own, bias="bias"))["to_out"] is None


# Every registered block -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY.names())
def test_every_parameter_has_a_role_and_decays_by_it_alone(name):
    entry = REGISTRY[name]
    if entry.family in ("score", "normaliser"):  # parts of an attention, which have no cases of their own
        check_decay(factory(name)(*(4, 16)[: len(entry.facts)]))
    for case in cases(name):
        try:
            block = built(case)
        except ValueError:
            continue
        if isinstance(block, nn.Module):
            check_decay(block)


def check_decay(block):
    found = roles(block)
    assert set(found) == {name for name, _ in block.named_parameters()}
    assert None not in found.values()
    if found:
        assert decayed(block) == {name for name, role in found.items() if role in DECAYED}
    for part in block.modules():
        if isinstance(part, nn.Embedding | nn.LayerNorm | nn.RMSNorm | Norm):
            assert not {held.role for held in roles_of(part)} & DECAYED


def mixer(name, causal=True, **choices):
    make = factory({"name": name, **choices}, ("attention", "linear", "recurrent", "convolution"))
    return make(D, Mask(causal))


def position(name, **choices):
    return factory({"name": f"position/{name}", **choices})(4, 16)


def residual(name, **choices):
    return factory({"name": f"residual/{name}", **choices})(D, Site(causal=True, max_length=8, depth=1, n_layers=3))


KEPT = {  # never shrunk, though most of them have two axes or more
    "s4d": (mixer("recurrent/s4d"), {"there.log_dt", "there.log_fade", "there.turn", "skip"}),
    "rg_lru": (mixer("recurrent/rg_lru"), {"there.base", "bias", "there.to_decay.bias"}),
    "lstm": (mixer("recurrent/lstm"), {"cell.bias_ih_l0", "cell.bias_hh_l0"}),
    "mamba2": (mixer("linear/mamba2"), {"to_decay.dt_bias", "to_decay.A_log", "skip", "conv.bias", "norm.weight"}),
    "differential": (mixer("attention/differential"), {"lambdas", "norm.weight"}),
    "talking_heads": (mixer("attention/talking_heads"), {"mix_scores", "mix_weights"}),
    "hyena": (mixer("convolution/hyena"), {"filter.frequency", "skip"}),
    "hyper_connections": (residual("hyper_connections"), {"reads", "keeps", "writes", "strength", "norm.weight"}),
    "gated": (residual("gated"), {"threshold"}),
    "t5": (position("t5"), {"table"}),
    "shaw": (position("shaw"), {"keys", "values"}),
    "cope": (position("cope"), {"table"}),
    "dependency": (position("dependency", absolute="depth"), {"paths", "depths"}),
    "transformer_xl": (position("transformer_xl"), {"u", "v"}),
    "kerple": (position("kerple"), {"raw_r1", "raw_r2"}),
    "learned": (factory("position/learned")(D, 64), {"table.weight"}),
    "cosine": (factory("score/cosine")(4, 16), {"log_factor"}),
    "sink": (factory("normaliser/sink")(4), {"sink"}),
    "token": (factory("embedding/token")(29, D), {"table.weight"}),
    "rwkv_channel_mix": (factory("ffn/rwkv_channel_mix")(D), {"gate_blend", "hidden_blend"}),
    "moe": (factory({"name": "ffn/moe", "balance": "bias"})(D), {"handicap"}),
}
SHRUNK = {
    "s4d": {"there.read", "to_gate.weight", "to_out.weight"},
    "rg_lru": {"taps", "there.to_decay.weight", "there.to_input.weight"},
    "lstm": {"cell.weight_ih_l0", "cell.weight_hh_l0", "to_out.weight"},
    "mamba2": {"conv.weight", "to_decay.to_dt.weight"},
    "differential": {"to_q.weight", "to_v.weight"},
    "talking_heads": {"to_v.weight", "to_out.weight"},
    "hyena": {"taps", "filter.layers.0.weight", "filter.to_taps.weight"},
    "hyper_connections": {"dynamic"},
    "gated": {"to_gate.weight"},
    "transformer_xl": {"to_r"},
    "moe": {"to_scores.weight", "experts.0.to_out.weight", "experts.7.to_gate.weight"},
}


@pytest.mark.parametrize("name", KEPT)
def test_dynamics_tables_gains_and_biases_do_not_shrink_and_matrices_do(name):
    block, kept = KEPT[name]
    every = {n for n, _ in block.named_parameters()}
    assert kept <= every
    assert not kept & decayed(block)
    assert SHRUNK.get(name, set()) <= decayed(block)


# The laws -------------------------------------------------------------------------------------------------------


def plain(name="proj", declared=True, **own):
    """A feed-forward of a stranger, who calls things otherwise."""

    class Stranger(Ffn):
        def __init__(self):
            super().__init__(D)
            self.up = nn.Linear(D, 2 * D)
            out = nn.Linear(2 * D, D)
            setattr(self, name, declare(out, weight="writer") if declared else out)
            for attribute, value in own.items():
                setattr(self, attribute, nn.Parameter(value))

        def forward(self, x, layout, state=None):
            y = getattr(self, name)(torch.relu(self.up(x)))
            return y + sum(getattr(self, attribute) for attribute in own), state

        def cost(self, length):
            return Cost(0, 0, 0, 0, 0)

    return Stranger()


def test_a_parameter_without_a_role_is_named():
    gives_every_parameter_a_role(plain())
    with pytest.raises(
        Broken, match=r"^every parameter must have a role, but these have none, and do not decay: shift\."
    ):
        gives_every_parameter_a_role(plain(shift=torch.ones(D)))


def test_a_writer_that_is_not_declared_is_named():
    writes_with_its_writers(plain())
    message = (
        r"must be declared a writer, but none is, and the output is zero where one of these is zero: to_out\.weight"
    )
    with pytest.raises(Broken, match=message):
        writes_with_its_writers(plain("to_out", declared=False))


def test_what_a_sublayer_writes_beside_its_writers_is_reported():
    message = (
        r"with its writers \(proj\.weight\) and their biases at zero a sublayer must write zero, but writes up to 1"
    )
    with pytest.raises(Broken, match=message):
        writes_with_its_writers(plain(shift=torch.ones(D)))


# Who reads roles ------------------------------------------------------------------------------------------------


def test_depth_narrows_a_writer_by_any_name_and_one_that_starts_itself():
    """GPT-2's factor for 4 sublayers is a half."""

    def ffn(d_model):
        block = plain("proj")
        block.bare = nn.Parameter(torch.ones(2 * D, D))
        return declare(block, bare="writer")

    layer = partial(
        Sequential, mixer=factory("recurrent/rnn"), mask=Causal, ffn=ffn, residual=partial(PreNorm, norm=RMSNorm)
    )
    stack = Layers(D, Site(causal=True, max_length=8), layers=[layer] * 2, norm=RMSNorm)
    Gpt2(std=0.02)(stack)
    for one in stack.layers:
        assert one.ffn.proj.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert one.mixer.to_out.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert one.ffn.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert (one.ffn.bare == 0.5).all()


def test_role_of_is_that_of_the_module_alone():
    assert role_of(declare(nn.Linear(2, 2), weight="writer"), "weight") == "writer"
    assert role_of(nn.Linear(2, 2), "weight") == "matrix"
