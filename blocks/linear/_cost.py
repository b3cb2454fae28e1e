"""What the chunked sums cost: products in closed form, as ``torch.utils.flop_counter`` counts them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from blocks.contracts import Cost, Mixer, Path
from blocks.linear._chunked import chunk_of, even_chunk_of, n_chunks


def projection_flops(block: nn.Module, length: int) -> int:
    """Of every linear map in ``block``, applied once to each token."""
    return sum(2 * length * m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))


def fading_flops(length: int, n_heads: int, n_features: int, value_dim: int, pair_dim: int | None = None) -> int:
    """Of ``fading`` without a state; ``pair_dim`` is the width of what pairs are made of, all heads together."""
    size = chunk_of(length, n_features, value_dim)
    chunks = -(-length // size)
    pairs = size * size * ((pair_dim or n_heads * n_features) + n_heads * value_dim)
    states = 2 * size * n_heads * n_features * value_dim if chunks > 1 else 0
    return 2 * chunks * (pairs + states)


def channels_flops(length: int, n_heads: int, key_dim: int, value_dim: int) -> int:
    """Of ``channels`` without a state."""
    size = even_chunk_of(length, key_dim, value_dim)
    chunks = -(-length // size)
    pairs = size * size * value_dim + size * (size - 1) // 2 * key_dim
    states = 2 * size * key_dim * value_dim if chunks > 1 else 0
    return 2 * chunks * n_heads * (pairs + states)


def delta_flops(length: int, n_heads: int, key_dim: int, value_dim: int) -> int:
    """Of ``delta`` without a state; a triangular solve does not count as a product."""
    size = chunk_of(length, key_dim, value_dim)
    chunks = -(-length // size)
    pairs = size * size * (2 * key_dim + value_dim)
    states = key_dim * (size * (key_dim + 3 * value_dim) + key_dim * value_dim) if chunks > 1 else 0
    return 2 * chunks * n_heads * (pairs + states)


def scan_cost(
    block: Mixer[Any], length: int, flops_of: Callable[..., int], n_heads: int, key_dim: int, value_dim: int
) -> Cost:
    """What a block costs that projects and scans by one of the above, once or (under a full mask) both ways.

    Its states follow one another, one a chunk.
    """
    causal, chunks = block.mask.causal, n_chunks(length, key_dim, value_dim)
    scan = flops_of(length, n_heads, key_dim, value_dim)
    return Cost(
        parameters=sum(p.numel() for p in block.parameters()),
        flops=projection_flops(block, length) + (scan if causal else 2 * scan),
        state_bytes=block.empty_state(1, length).bytes() if causal else 0,
        steps=chunks,
    )


def scan_path(block: Mixer[Any], distance: int) -> Path:
    """From one token to another by the states of the chunks between them."""
    return Path(1, block.cost(distance + 1).steps)


def mean_cost(
    block: Mixer[Any],
    length: int,
    n_heads: int,
    n_features: int,
    value_dim: int,
    pair_dim: int | None = None,
    fades: bool = False,
) -> Cost:
    """What a block costs that projects and takes a mean of values; ``pair_dim`` as for ``fading_flops``.

    fades: its features fade one by one.
    """
    counted = value_dim + 1
    if block.mask.causal:
        scan: Callable[..., int] = channels_flops if fades else partial(fading_flops, pair_dim=pair_dim)
        return scan_cost(block, length, scan, n_heads, n_features, counted)
    parameters = sum(p.numel() for p in block.parameters())
    flops = projection_flops(block, length) + 4 * length * n_heads * n_features * counted
    return Cost(parameters, flops, state_bytes=0, steps=1)
