"""Laws of whole models, and of how they start."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from blocks.contracts import Init, Layout, Memory, Model
from blocks.laws.specs import model_spec
from blocks.laws.trying import Broken, V, dtype_and_device, hold, tree
from registry import factory


def starts_at_chance(model: Model) -> None:
    """The loss of an untrained model is ln V."""
    device = dtype_and_device(model)["device"]
    tokens = torch.randint(0, V, (8, 24), generator=torch.Generator().manual_seed(0)).to(device)
    targets = torch.randint(0, V, (8, 24), generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        logits = model(tokens, *given(model, tokens))[0]
    if logits.ndim == 2:
        targets = targets[:, 0]
    targets = targets % logits.shape[-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten()).item()
    chance = math.log(logits.shape[-1])
    hold(abs(loss - chance) < 0.1, f"the first loss must be within 0.1 of {chance:.3f}, but is {loss:.3f}.")


def given(model: Model, tokens: Tensor) -> tuple[Layout, None, Memory | None]:
    """What a model is called with beside the tokens: their layout, no state, and what its encoder makes of them."""
    rows, length = tokens.shape
    layout = Layout.full(rows, length, tokens.device)._replace(heads=tree(rows, length, tokens.device))
    encode = getattr(model, "encode", None)
    return layout, None, encode(tokens.flip(1), layout) if encode else None


def learns_a_tiny_batch(model: Model) -> None:
    """A few rows can be learned by heart: the loss falls below half of chance."""
    torch.manual_seed(0)
    model = copy.deepcopy(model).float().train()
    device = dtype_and_device(model)["device"]
    tokens = torch.randint(0, V, (2, 12), generator=torch.Generator().manual_seed(0)).to(device)
    targets = torch.randint(0, V, (2, 12), generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss = chance = math.log(V)
    for _ in range(80):
        logits = model(tokens, *given(model, tokens))[0]
        asked = targets % logits.shape[-1] if logits.ndim == 3 else targets[:, 0] % logits.shape[-1]
        step = nn.functional.cross_entropy(logits.flatten(0, -2), asked.flatten())
        optimizer.zero_grad()
        step.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = step.item()
        chance = math.log(logits.shape[-1])
        if loss < 0.4 * chance:
            return
    raise Broken(f"two rows must be learned in 80 steps, but the loss is still {loss:.2f} of {chance:.2f}.")


UNTOUCHED = 7.0
"""A value that no scheme starts a parameter at."""


def starts_linears_and_embeddings(init: Init) -> None:
    """Every weight and bias of a linear layer or an embedding is set, and nothing else; the same under one seed."""
    for tie in (True, False):
        spec = model_spec(
            "model/decoder_only", ffn="ffn/mlp", residual={"name": "residual/pre_norm", "norm": "norm/layer"}
        )
        model = factory({**spec, "tie": tie})(V)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(UNTOUCHED)
        first, again, other = (_started(init, model, seed) for seed in (0, 0, 1))
        may = {f"{name}.{key}" for name, key in _startable(model)}
        for name, p in first.named_parameters():
            hold(p.isfinite().all(), f"every number must be finite, but {name} is not.")
            left = (p == UNTOUCHED).all().item()
            if name in may:
                hold(not left, f"an init must set every linear layer and embedding, but leaves {name} as it was.")
            else:
                hold(left, f"an init must set linear layers and embeddings only, but sets {name}.")
            hold(torch.equal(p, again.get_parameter(name)), f"one seed must give one start, but {name} differs.")
        differs = any(not torch.equal(p, other.get_parameter(name)) for name, p in first.named_parameters())
        hold(differs, "another seed must give another start, but gives the same.")


def _started(init: Init, model: nn.Module, seed: int) -> nn.Module:
    model = copy.deepcopy(model)
    torch.manual_seed(seed)
    init(model)
    return model


def _startable(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The parameters of linear layers and embeddings, by the names of module and parameter."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            yield from ((name, key) for key, _ in module.named_parameters(recurse=False))
