"""Laws of every module: each parameter has a role, and what writes into the stream is declared a writer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from blocks.contracts import ROLES, Ffn, Held, Layer, Mixer, Stack, roles_of
from blocks.laws.reader import Reader
from blocks.laws.trying import B, D, T, draw, full, hold


def gives_every_parameter_a_role(block: nn.Module) -> None:
    """Weight decay, init schemes and residual gains read roles; a parameter without one is in none of them."""
    missing = [held.name for held in roles_of(block) if held.role is None]
    hold(
        not missing,
        f"every parameter must have a role, but these have none, and do not decay: {', '.join(missing)}. Declare each "
        f'in its module, as in declare(self, {missing[0].rpartition(".")[2] if missing else ""}="gain"); there are '
        f"{', '.join(ROLES)}.",
    )


@torch.no_grad()
def writes_with_its_writers(block: nn.Module) -> None:
    """With its writers at zero a sublayer writes zero; one that declares none has no matrix that could be one."""
    if not isinstance(block, Mixer | Ffn) or isinstance(block, Layer | Stack | Reader):
        return
    held = list(roles_of(block))
    writers = [h for h in held if h.role == "writer"]
    if writers:
        most = _without(block, writers).abs().max().item()
        hold(
            most == 0.0,
            f"with its writers ({', '.join(h.name for h in writers)}) and their biases at zero a sublayer must write "
            f"zero, but writes up to {most:.2e}. Declare what else it writes with.",
        )
        return
    found = [h.name for h in held if h.role in ("matrix", "value") and not _without(block, [h]).any()]
    hold(
        not found,
        "the matrix that writes into the stream must be declared a writer, but none is, and the output is zero where "
        f"one of these is zero: {', '.join(found)}. Declare it, as in "
        'self.to_out = declare(nn.Linear(d_model, d_model), weight="writer").',
    )


def _without(block: Any, parts: Iterable[Held]) -> Tensor:
    """What a copy of the block writes with these parameters, and the biases beside them, at zero."""
    tried = copy.deepcopy(block)
    copies = {h.name: h for h in roles_of(tried)}
    for part in parts:
        found = copies[part.name]
        found.parameter.zero_()
        for beside in roles_of(found.module):
            if beside.role == "bias" and beside.module is found.module:
                beside.parameter.zero_()
    y: Tensor = tried(draw(tried, B, T, D), full(tried))[0]
    return y


ROLE_LAWS: list[Callable[[Any], None]] = [gives_every_parameter_a_role, writes_with_its_writers]
