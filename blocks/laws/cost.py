"""Laws of what a block says that it costs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from blocks.contracts import Layout, Mixer
from blocks.laws.reader import Reader
from blocks.laws.trying import D, dtype_and_device, hold


def costs_what_it_says(block: nn.Module) -> None:
    """Declared parameters, FLOPs and state bytes are the measured ones."""
    place = dtype_and_device(block)
    for length in (16, 64):
        cost = block.cost(length)  # type: ignore[operator]
        parameters = sum(p.numel() for p in block.parameters())
        hold(cost.parameters == parameters, f"cost says {cost.parameters} parameters, but there are {parameters}.")
        flops = _count_flops(block, length)
        hold(cost.flops == flops, f"cost says {cost.flops} FLOPs for {length} tokens, but {flops} were counted.")
        hold(cost.steps >= 0 and cost.path >= 0, f"steps and path must not be negative, but are {cost[3:]}.")
        if isinstance(block, Mixer) and block.mask.causal:
            measured = block.empty_state(1, length).bytes()
            says = f"cost says {cost.state_bytes} bytes of state in {place['dtype']} after {length} tokens"
            hold(cost.state_bytes == measured, f"{says}, but the state holds {measured}.")


def _count_flops(block: nn.Module, length: int) -> int:
    ghost = copy.deepcopy(block).to("meta")
    if isinstance(ghost, Reader):
        ghost = Reader(ghost.decoder, length)  # what a decoder costs counts a source as long as the row
    x = torch.empty(1, length, D, dtype=dtype_and_device(block)["dtype"], device="meta")
    layout = Layout.full(1, length, "meta")._replace(heads=torch.zeros(1, length, dtype=torch.long, device="meta"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ghost(x, layout)
    return counter.get_total_flops()


COST_LAWS: list[Callable[[Any], None]] = [costs_what_it_says]
"""Of mixers and feed-forwards."""
