"""Products of many tokens with one weight: the same numbers by either library."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blocks import projection
from blocks.projection import Linear, project, quicken
from registry import REGISTRY, factory
from registry.plugins import load_builtin

load_builtin()


@pytest.fixture
def convolved(monkeypatch):
    """Every product goes by a convolution, whatever this machine is; counts them."""
    calls = []
    conv2d = F.conv2d
    monkeypatch.setattr(projection, "AT_HALF_SPEED", True)
    monkeypatch.setattr(projection, "FEW", 1)
    monkeypatch.setattr(F, "conv2d", lambda *args: calls.append(1) or conv2d(*args))
    return calls


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 7, 64), (2, 3, 5, 64)])
def test_a_convolution_gives_the_product(convolved, shape, biased):
    x, weight, bias = draw(*shape), draw(48, 64, seed=1), draw(48, seed=2) if biased else None
    y = project(x, weight, bias)
    assert convolved == [1]
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    given = [t for t in (x, weight, bias) if t is not None]
    gradient = draw(*y.shape, seed=3).detach()
    for got, right in zip(
        torch.autograd.grad(y, given, gradient), torch.autograd.grad(expected, given, gradient.double()), strict=True
    ):
        torch.testing.assert_close(got, right.float(), rtol=1e-4, atol=1e-5)


def test_views_are_taken_as_they_are(convolved):
    x, weight = draw(64, 9, 2), draw(64, 48, seed=1)
    y = project(x.permute(2, 1, 0), weight.T)
    torch.testing.assert_close(y, x.permute(2, 1, 0) @ weight, rtol=1e-5, atol=1e-5)
    assert convolved == [1]


def test_it_is_the_same_every_time(convolved):
    x, weight = draw(3, 700, 96), draw(130, 96, seed=1)
    first, again = (torch.autograd.grad(project(x, weight).square().sum(), (x, weight)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_only_float32_is_convolved(convolved, dtype):
    x, weight = draw(4, 64).to(dtype), draw(48, 64, seed=1).to(dtype)
    assert torch.equal(project(x, weight), F.linear(x, weight))
    assert not convolved


def test_autocast_keeps_its_dtype(convolved):
    with torch.autocast("cpu", torch.bfloat16):
        assert project(draw(4, 64), draw(48, 64, seed=1)).dtype == torch.bfloat16
    assert not convolved


def test_few_tokens_are_not_worth_it(convolved, monkeypatch):
    monkeypatch.setattr(projection, "FEW", 4 * 64 * 48 + 1)
    project(draw(4, 64), draw(48, 64, seed=1))
    assert not convolved
    project(draw(5, 64), draw(48, 64, seed=1))
    assert convolved == [1]


def test_every_linear_of_a_model_is_quickened(convolved):
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(64, 48), nn.Sequential(Own(48, 48), nn.Linear(48, 64)))
    x = draw(3, 64)
    before = model(x)
    names = list(model.state_dict())
    quicken(model)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [Linear, Own, Linear]
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(model)(x), before, rtol=1e-5, atol=1e-5)
    assert len(convolved) == 4


@pytest.mark.parametrize("name", REGISTRY.names("model"))
def test_models_are_quickened(convolved, name):
    layer = {
        "name": "layer/sequential",
        "mixer": "attention/mha",
        "mask": "mask/full" if name == "model/encoder_only" else "mask/causal",
        "ffn": "ffn/mlp",
        "residual": "residual/pre_norm",
    }
    stack = {"name": "stack/plain", "layers": [layer]}
    reader = {**stack, "layers": [{**layer, "cross_attention": "attention/mha"}]}
    stacks = {
        "model/encoder_only": {"encoder": stack},
        "model/decoder_only": {"decoder": stack},
        "model/encoder_decoder": {
            "encoder": {**stack, "layers": [{**layer, "mask": "mask/full"}]},
            "decoder": reader,
        },
    }
    model = factory({"name": name, "d_model": 64, **stacks[name]})(29)
    found = {type(m) for m in model.modules() if isinstance(m, nn.Linear)}
    assert found == {Linear}


def test_where_torch_is_fast_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(projection, "AT_HALF_SPEED", False)
    model = nn.Sequential(nn.Linear(8, 8))
    quicken(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(("maker", "capability", "slow"), [
    ("GenuineIntel", "AVX512", False),
    ("AuthenticAMD", "AVX512", True),
    ("AuthenticAMD", "AVX2", False),
])  # fmt: skip
def test_which_processors_are_slow(monkeypatch, tmp_path, maker, capability, slow):
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {maker}\n", encoding="utf-8")
    monkeypatch.setattr(projection, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert projection._at_half_speed() is slow
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not projection._at_half_speed()
