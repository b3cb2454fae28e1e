"""Rotary position against complex rotation, against the published scalings, and at the precision it is used in."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from blocks.contracts import PAD, Layout
from blocks.position.rope import Rope

PAIRINGS = pytest.mark.parametrize("pairing", ["interleaved", "half"])


def at(*position: int) -> Layout:
    """A row of tokens that sit where they are told."""
    return Layout(torch.tensor([position]), torch.zeros(1, len(position), dtype=torch.long))


def turned_one_by_one(x, position, base, half):
    """Each pair of channels as a complex number, multiplied by e^(i angle)."""
    out = x.clone()
    C = x.shape[-1]
    for pair in range(C // 2):
        a, b = (pair, pair + C // 2) if half else (2 * pair, 2 * pair + 1)
        angle = position.double() * base ** (-2 * pair / C)
        z = torch.complex(x[..., a], x[..., b]) * torch.polar(torch.ones_like(angle), angle)[..., None]
        out[..., a], out[..., b] = z.real, z.imag
    return out


@PAIRINGS
def test_turns_each_pair_as_a_complex_number(pairing, device):
    x, position = torch.randn(2, 5, 3, 8, dtype=torch.float64), torch.randint(0, 1000, (2, 5))
    layout = Layout(position.to(device), torch.zeros_like(position).to(device))
    turned = Rope(3, 8, pairing=pairing, base=500.0).rotate(x.to(device), layout, "query")
    assert_close(turned.cpu(), turned_one_by_one(x, position, 500.0, pairing == "half"))


@PAIRINGS
def test_a_row_that_is_known_to_be_whole_turns_the_same(pairing):
    x, layout = torch.randn(3, 7, 2, 6), Layout.full(3, 7)
    rope = Rope(2, 6, pairing=pairing)
    assert_close(rope.rotate(x, layout, "key"), rope.rotate(x, layout._replace(dense=False), "key"))


@PAIRINGS
def test_products_depend_on_distance_only(pairing):
    rope = Rope(2, 8, pairing=pairing)
    q, k = torch.randn(2, 1, 1, 2, 8, dtype=torch.float64)
    near = rope.rotate(q, at(9), "query") * rope.rotate(k, at(4), "key")
    far = rope.rotate(q, at(1009), "query") * rope.rotate(k, at(1004), "key")
    apart = rope.rotate(q, at(9), "query") * rope.rotate(k, at(5), "key")
    assert_close(near.sum(-1), far.sum(-1))
    assert not torch.allclose(near.sum(-1), apart.sum(-1))


@PAIRINGS
def test_keeps_lengths(pairing):
    x = torch.randn(1, 4, 2, 6)
    assert_close(Rope(2, 6, pairing=pairing).rotate(x, Layout.full(1, 4), "key").norm(dim=-1), x.norm(dim=-1))


@PAIRINGS
def test_a_fraction_turns_like_a_narrower_head_and_leaves_the_rest_alone(pairing):
    x, layout = torch.randn(1, 4, 2, 9), Layout.full(1, 4)
    turned = Rope(2, 9, fraction=0.5, pairing=pairing).rotate(x, layout, "query")
    assert_close(turned[..., :4], Rope(2, 4, pairing=pairing).rotate(x[..., :4], layout, "query"))
    assert torch.equal(turned[..., 4:], x[..., 4:])


@PAIRINGS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_angles_stay_exact_in_half_precision(pairing, dtype):
    """At position 4095 a bfloat16 angle would be off by radians."""
    x = torch.randn(1, 3, 2, 8).to(dtype)
    layout = at(0, 511, 4095)
    exact = Rope(2, 8, pairing=pairing).rotate(x.double(), layout, "query")
    half = Rope(2, 8, pairing=pairing).to(dtype).rotate(x, layout, "query")
    assert half.dtype == dtype
    assert_close(half.double(), exact, atol=0.03, rtol=0)


@PAIRINGS
def test_gradients_are_those_of_a_rotation(pairing):
    x = torch.randn(2, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    rope, layout = Rope(2, 6, fraction=0.7, pairing=pairing), Layout.full(2, 3)
    assert torch.autograd.gradcheck(lambda x: rope.rotate(x, layout, "query"), x)


@PAIRINGS
@pytest.mark.parametrize(("width", "start"), [(32, 4), (32, 5), (31, 4)])
def test_slices_of_a_wider_projection_turn_as_copies_would(pairing, width, start):
    """Wherever they start, and however far their rows are apart."""
    wide, layout = torch.randn(2, 5, width, dtype=torch.float64), Layout.full(2, 5)
    rope = Rope(3, 6, pairing=pairing)
    part = wide[..., start : start + 18].unflatten(-1, (3, 6))
    assert_close(rope.rotate(part, layout, "query"), rope.rotate(part.contiguous(), layout, "query"))


@PAIRINGS
def test_the_compiled_form_is_the_same(pairing, monkeypatch):
    """Under the compiler interleaved pairs turn without complex numbers."""
    x, rope = torch.randn(2, 5, 3, 8, dtype=torch.float64), Rope(3, 8, fraction=0.5, pairing=pairing)
    eager = rope.rotate(x, Layout.full(2, 5), "query")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_close(rope.rotate(x, Layout.full(2, 5), "query"), eager)


def test_layers_of_one_forward_share_the_angles():
    rope, layout = Rope(2, 8), Layout.full(2, 5).fresh()
    x = torch.randn(2, 5, 2, 8)
    rope.rotate(x, layout, "query")
    kept = dict(layout.scratch.kept)
    rope.rotate(x, layout, "key")
    assert len(kept) == 1
    assert layout.scratch.kept == kept
    rope.rotate(x.bfloat16(), layout, "key")
    Rope(2, 8, base=100.0).rotate(x, layout, "key")
    assert len(layout.scratch.kept) == 3


def test_padding_stays_finite():
    layout = Layout(torch.tensor([[0, PAD, 1]]), torch.tensor([[0, PAD, 0]]))
    assert Rope(2, 8).rotate(torch.randn(1, 3, 2, 8), layout, "query").isfinite().all()


def test_a_cached_decoder_step_attends_as_the_whole_does(attend):
    rope, layout = Rope(4, 8), Layout.full(2, 7)
    q, k, v = torch.randn(2, 7, 4, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8)
    assert_close(attend(rope, q, k, v, layout, True)[:, 5:], attend(rope, q, k, v, layout, True, start=5))


# Scaling: frequencies against the published formulas -----------------------------------------------------------------


def scaled(head_dim=16, base=10_000.0, **choices):
    return Rope(1, head_dim, base=base, **choices).frequencies(torch.zeros((), dtype=torch.float64))


PLAIN = [10_000.0 ** (-2 * i / 16) for i in range(8)]


def test_without_scaling_frequencies_fall_geometrically():
    assert_close(scaled(), torch.tensor(PLAIN, dtype=torch.float64))


def test_linear_scaling_squeezes_positions():
    assert_close(scaled(scaling="linear", factor=4.0), torch.tensor(PLAIN, dtype=torch.float64) / 4)


def test_ntk_scaling_keeps_the_fastest_pair_and_slows_the_slowest_by_the_factor():
    found = scaled(scaling="ntk", factor=4.0)
    assert_close(found[0].item(), PLAIN[0])
    assert_close(found[-1].item(), PLAIN[-1] / 4)
    assert_close(found, torch.tensor([(10_000.0 * 4 ** (16 / 14)) ** (-2 * i / 16) for i in range(8)]).double())


def test_llama3_scaling_follows_the_published_cases():
    found = scaled(scaling="llama3", factor=8.0, original_length=256, slow_turns=1.0, fast_turns=4.0)
    kinds = set()
    for frequency, f in zip(found.tolist(), PLAIN, strict=True):
        wavelength = 2 * math.pi / f
        if wavelength < 256 / 4:
            expected, kind = f, "kept"
        elif wavelength > 256 / 1:
            expected, kind = f / 8, "slowed"
        else:
            smooth = (256 / wavelength - 1) / (4 - 1)
            expected, kind = (1 - smooth) * f / 8 + smooth * f, "between"
        kinds.add(kind)
        assert frequency == pytest.approx(expected)
    assert kinds == {"kept", "slowed", "between"}


def test_yarn_scaling_follows_the_authors_code():
    C, base, factor, length = 16, 10_000.0, 8.0, 2048
    fast, slow = (C * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1))
    fast, slow = math.floor(fast), math.ceil(slow)
    assert 0 < fast < slow < 8
    found = scaled(scaling="yarn", factor=factor, original_length=length)
    for i, f in enumerate(PLAIN):
        ramp = min(max((i - fast) / (slow - fast), 0.0), 1.0)
        assert found[i].item() == pytest.approx(f / factor * ramp + f * (1 - ramp))


def test_yarn_makes_queries_and_keys_longer():
    """Each by 0.1 ln(factor) + 1, which cools the softmax by its square."""
    x = torch.randn(1, 4, 2, 8)
    turned = Rope(2, 8, scaling="yarn", factor=16.0, original_length=64).rotate(x, Layout.full(1, 4), "query")
    assert_close(turned.norm(dim=-1), x.norm(dim=-1) * (0.1 * math.log(16.0) + 1))


@pytest.mark.parametrize("scaling", ["linear", "ntk", "yarn", "llama3"])
def test_scaling_by_nearly_one_changes_nearly_nothing(scaling):
    length = 64 if scaling in ("yarn", "llama3") else None
    assert_close(scaled(scaling=scaling, factor=1 + 1e-9, original_length=length), scaled())


@pytest.mark.parametrize(("scaling", "extra"), [("linear", {}), ("yarn", {}), ("llama3", {"high_freq_factor": 4.0})])
def test_agrees_with_transformers(scaling, extra):
    config = pytest.importorskip("transformers").LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        max_position_embeddings=8192,
        rope_parameters={
            "rope_type": scaling,
            "rope_theta": 10_000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 1024,
            "low_freq_factor": 1.0,
            **extra,
        },
    )
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theirs, stretch = ROPE_INIT_FUNCTIONS[scaling](config, torch.device("cpu"))
    length = None if scaling == "linear" else 1024
    ours = Rope(2, 64, scaling=scaling, factor=8.0, original_length=length)
    assert_close(ours.frequencies(torch.zeros(())), theirs)
    assert ours.stretch == pytest.approx(stretch)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            partial(Rope, 1, 6, fraction=0.5),
            r"the turning channels must be an even number from 2 to head_dim, but got 3 of 6\.",
        ),
        (
            partial(Rope, 1, 8, fraction=0.1),
            r"the turning channels must be an even number from 2 to head_dim, but got 0 of 8\.",
        ),
        (partial(Rope, 1, 8, base=1.0), r"base must be above 1, but got 1\.0\."),
        (
            partial(Rope, 1, 8, factor=8.0),
            r"factor must be 1 without a scaling and above 1 with one, but got 8\.0 with scaling 'none'\.",
        ),
        (
            partial(Rope, 1, 8, factor=0.5, scaling="ntk"),
            r"factor must be 1 without a scaling and above 1 with one, but got 0\.5 with scaling 'ntk'\.",
        ),
        (
            partial(Rope, 1, 8, scaling="linear"),
            r"factor must be 1 without a scaling and above 1 with one, but got 1\.0 with scaling 'linear'\.",
        ),
        (
            partial(Rope, 1, 8, slow_turns=2.0),
            r"slow_turns and fast_turns must be left as they are where no turns are counted \(by yarn and llama3\), "
            r"but got 2\.0 and None with scaling 'none'\.",
        ),
        (
            partial(Rope, 1, 8, factor=2.0, scaling="yarn"),
            r"original_length must be given for yarn and llama3, and for nothing else, "
            r"but got None with scaling 'yarn'\.",
        ),
        (
            partial(Rope, 1, 8, factor=2.0, scaling="linear", original_length=64),
            r"original_length must be given for yarn and llama3, and for nothing else, "
            r"but got 64 with scaling 'linear'\.",
        ),
        (
            partial(Rope, 1, 8, factor=2.0, scaling="llama3", original_length=64, slow_turns=4.0),
            r"slow_turns must be above 0 and below fast_turns, but got 4\.0 and 4\.0\.",
        ),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()
