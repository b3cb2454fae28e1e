"""Laws of optimizers."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blocks.laws import hold
from training.contracts import Optimizer
from training.laws.trying import small_model
from training.optimizer.groups import decay_groups


class Descent(NamedTuple):
    """An optimizer and what it is to train."""

    optimizer: Optimizer
    model: nn.Module


def takes_every_parameter_once(given: Optimizer | Descent) -> None:
    """Each parameter that is trained is in one group, and none that is frozen."""
    optimizer, model = _pair(given)
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    held = [p for group in optimizer(model).param_groups for p in group["params"]]
    ids, names = [id(p) for p in held], {id(p): name for name, p in model.named_parameters()}
    twice = [names.get(i, "another tensor") for i in dict.fromkeys(ids) if ids.count(i) > 1]
    hold(not twice, f"every parameter must be in one group, but these are in several: {', '.join(twice)}.")
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in ids]
    hold(not missing, f"every parameter must be trained, but these are in no group: {', '.join(missing)}.")
    hold(id(frozen) not in ids, f"a frozen parameter must be left out, but {names[id(frozen)]} is in a group.")


def moves_every_parameter(given: Optimizer | Descent) -> None:
    """A step against a gradient changes each parameter, to finite numbers, and downhill."""
    optimizer, model = _pair(given)
    steps, before = optimizer(model), _copies(model)
    for _ in range(2):
        set_gradients(model, 1.0)
        steps.step()
    for name, p in model.named_parameters():
        hold(p.isfinite().all(), f"a step must leave finite numbers, but {name} has others.")
        hold(not torch.equal(p, before[name]), f"a step must change every parameter, but leaves {name} as it was.")
    gradients = _gradients(model)
    fall = sum(((p - before[name]) * gradients[name]).sum().item() for name, p in model.named_parameters())
    hold(fall < 0, "a step must lead downhill along a steady gradient, but leads uphill.")


def decays_only_what_it_may(given: Optimizer | Descent) -> None:
    """Without a gradient only those parameters move that weight decay may shrink, and they shrink."""
    optimizer, model = _pair(given)
    may = {id(p) for group in decay_groups(model, 1.0) if group["weight_decay"] for p in group["params"]}
    steps, before = optimizer(model), _copies(model)
    for group in steps.param_groups:
        if group.get("weight_decay"):
            wrong = [name for name, p in model.named_parameters() if id(p) not in may and _in(p, group["params"])]
            hold(not wrong, f"weight decay must reach projections only, but these decay: {', '.join(wrong)}.")
    set_gradients(model, 0.0)
    steps.step()
    for name, p in model.named_parameters():
        if torch.equal(p, before[name]):
            continue
        hold(id(p) in may, f"weight decay must reach projections only, but {name} moves without a gradient.")
        hold(p.norm() < before[name].norm(), f"without a gradient {name} must shrink, but grows.")


def follows_its_learning_rate(given: Optimizer | Descent) -> None:
    """A learning rate of 0 in every group, as a schedule may set it, stops every parameter."""
    optimizer, model = _pair(given)
    steps, before = optimizer(model), _copies(model)
    for group in steps.param_groups:
        hold("lr" in group, "every group must have an 'lr' for the schedule to set, but one has none.")
        group["lr"] = 0.0
    set_gradients(model, 1.0)
    steps.step()
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    hold(not moved, f"with a learning rate of 0 nothing must move, but these do: {', '.join(moved)}.")


def resumes_from_its_state(given: Optimizer | Descent) -> None:
    """A new optimizer that took up the state of another goes on to the same bits."""
    optimizer, model = _pair(given)
    steps = optimizer(model)
    for _ in range(2):
        set_gradients(model, 1.0)
        steps.step()
    other = copy.deepcopy(model)
    again = optimizer(other)
    again.load_state_dict(copy.deepcopy(steps.state_dict()))
    for one, its in ((model, steps), (other, again)):
        set_gradients(one, 0.5)
        its.step()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        hold(torch.equal(p, q), f"an optimizer must go on from its state as if it had not stopped, but {name} differs.")


def _pair(given: Any) -> tuple[Optimizer, nn.Module]:
    """The optimizer and a model of its own for a law to change."""
    if isinstance(given, Descent):
        return given.optimizer, copy.deepcopy(given.model).float()
    return given, small_model()


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def set_gradients(model: nn.Module, size: float) -> None:
    gradients = _gradients(model)
    for name, p in model.named_parameters():
        p.grad = size * gradients[name].to(p)


def _in(parameter: Tensor, others: list[Tensor]) -> bool:
    return any(parameter is other for other in others)
