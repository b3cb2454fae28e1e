"""Laws of whole models."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from blocks.contracts import Layout, Memory, Model
from blocks.laws.trying import Broken, V, dtype_and_device, hold, tree


def starts_at_chance(model: Model) -> None:
    """Before it has learned anything, a model knows nothing: its loss is ln V."""
    device = dtype_and_device(model)["device"]
    tokens = torch.randint(0, V, (8, 24), generator=torch.Generator().manual_seed(0)).to(device)
    targets = torch.randint(0, V, (8, 24), generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        logits = model(tokens, *_model_inputs(model, tokens))[0]
    if logits.ndim == 2:
        targets = targets[:, 0]
    targets = targets % logits.shape[-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten()).item()
    chance = math.log(logits.shape[-1])
    hold(abs(loss - chance) < 0.1, f"the first loss must be within 0.1 of {chance:.3f}, but is {loss:.3f}.")


def _model_inputs(model: Model, tokens: Tensor) -> tuple[Layout, None, Memory | None]:
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
        logits = model(tokens, *_model_inputs(model, tokens))[0]
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
