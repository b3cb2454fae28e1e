"""Whatever reads pair by pair gives strip by strip what it gives at once, under every position and normaliser."""

import pytest
import torch
from torch.testing import assert_close

from blocks import functional
from blocks.cases import HEADS, is_attention_position, mask_of, mixer_of
from blocks.contracts import PAD, Layout, Memory
from blocks.laws import D
from registry import REGISTRY

B, T = 2, 45
EAGER = {"name": "attention/mha", **HEADS, "backend": "eager"}
POSITIONS = [p for p in REGISTRY.names("position") if is_attention_position(p) and p != "position/sum"]
MIXERS = [n for n in REGISTRY.names("attention") if n not in ("attention/linformer", "attention/nystrom")]


def layouts():
    document = torch.tensor([[0] * 20 + [PAD] * 5 + [1] * 20, [PAD] * 3 + [0] * 2 + [1] * 40])
    heads = torch.zeros(B, T, dtype=torch.long)
    yield Layout.full(B, T)._replace(heads=heads)
    yield Layout.packed(document, heads=torch.where(document == PAD, PAD, 0))


def results(mixer, layout, memory=None):
    torch.manual_seed(1)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    y = mixer(x, layout.fresh(), memory=memory)[0]
    y = y * layout.real[..., None]
    parameters = list(mixer.parameters())
    return [y, *torch.autograd.grad((y * torch.randn_like(y)).sum(), [x, *parameters], allow_unused=True)]


def agree(mixer, layout, monkeypatch, memory=None):
    whole = results(mixer.double(), layout, memory)
    monkeypatch.setattr(functional, "AT_ONCE", 0)
    monkeypatch.setattr(functional, "STRIP", 2000)
    for got, expected in zip(results(mixer, layout, memory), whole, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("backend", ["eager", "auto"])
@pytest.mark.parametrize("position", POSITIONS)
def test_under_every_position(position, backend, monkeypatch):
    mask = "mask/full" if position == "position/dependency" else "mask/causal"
    for layout in layouts():
        agree(
            mixer_of({**EAGER, "backend": backend}, mask_of(mask, mask != "mask/full"), position), layout, monkeypatch
        )
        monkeypatch.undo()


@pytest.mark.parametrize("normaliser", REGISTRY.names("normaliser"))
def test_under_every_normaliser(normaliser, monkeypatch):
    for layout in layouts():
        agree(mixer_of({**EAGER, "normaliser": normaliser}, mask_of("mask/causal", True)), layout, monkeypatch)
        monkeypatch.undo()


@pytest.mark.parametrize("name", MIXERS)
def test_of_every_mixer(name, monkeypatch):
    backend = {"backend": "eager"} if "backend" in REGISTRY[name].choices else {}
    for mask in (mask_of("mask/causal", True), mask_of("mask/longformer", False)):
        for layout in layouts():
            agree(mixer_of({"name": name, **backend}, mask, "position/none"), layout, monkeypatch)
            monkeypatch.undo()


@pytest.mark.parametrize("name", MIXERS)
def test_of_a_memory(name, monkeypatch):
    memory = Memory(torch.randn(B, 17, D, dtype=torch.float64), Layout.padded(torch.tensor([17, 9]), 17))
    agree(mixer_of(name, mask_of("mask/full", False), "position/none"), Layout.full(B, T), monkeypatch, memory)


def test_a_position_without_a_bias_leaves_the_fused_kernel_in_one_piece(monkeypatch):
    def refuse(kernel, per_pair):
        raise AssertionError("a fused kernel writes no pairs down")

    monkeypatch.setattr("blocks.attention.reading.in_strips", refuse)
    mixer = mixer_of({**EAGER, "backend": "auto"}, mask_of("mask/causal", True), "position/rope")
    mixer(torch.randn(B, T, D), Layout.full(B, T))
    mixer.reading.backend = "eager"
    with pytest.raises(AssertionError, match="writes no pairs"):
        mixer(torch.randn(B, T, D), Layout.full(B, T))
