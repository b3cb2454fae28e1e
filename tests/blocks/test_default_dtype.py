"""Every block is built and runs in the default dtype, whichever that is: nothing is made in another one."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from blocks.cases import cases
from blocks.contracts import Ffn, Layout, Mixer, Model, Residual
from blocks.laws import B, D, T, V
from blocks.laws.trying import full
from registry import REGISTRY


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [n for n in REGISTRY.names() if any(cases(n))])
def test_it_is_built_and_runs_in_the_default_dtype(name, dtype):
    for case in cases(name):
        try:
            block = case.make()
        except ValueError:
            continue
        if isinstance(block, nn.Module):
            for key, tensor in block.state_dict().items():
                assert tensor.dtype == dtype or not tensor.is_floating_point(), f"{case.label}: {key} is {tensor.dtype}"
            for y in outputs(block):
                assert y.dtype == dtype, f"{case.label}: {y.dtype}"
                assert y.isfinite().all()


@torch.no_grad()
def outputs(block: nn.Module) -> Iterator[torch.Tensor]:
    if isinstance(block, Mixer | Ffn):
        x, layout = torch.randn(B, T, D), full(block)
        yield block(x, layout)[0]
        if isinstance(block, Mixer) and block.mask.causal:
            y, state = block(x[:, :5], layout.slice(0, 5), block.empty_state(B, T))
            yield y
            yield block(x[:, 5:6], layout.slice(5, 6), state)[0]
    elif isinstance(block, Residual):
        x = torch.randn(B, T, D) if block.streams == 1 else torch.randn(B, T, block.streams, D)
        yield block.read(x)
        yield block.write(x, torch.randn(B, T, D))
    elif isinstance(block, Model):
        tokens, layout = torch.randint(0, V, (2, 8)), Layout.full(2, 8)
        memory = block.encode(tokens, layout) if hasattr(block, "encode") else None
        yield block(tokens, layout, None, memory)[0]
