"""Which slots there are, and what fills them: the shape of a config."""

from __future__ import annotations

from typing import Any

from registry.core import MIXERS

LAYER_SLOTS: dict[str, tuple[str, ...]] = {
    "mixer": MIXERS,
    "attention": ("attention",),
    "cross_attention": ("attention",),
    "position": ("position",),
    "mask": ("mask",),
    "norm": ("norm",),
    "ffn": ("ffn",),
    "residual": ("residual",),
    "layer": ("layer",),
}
"""What each layer of a stack is made of, and the families that fill it."""

STACK_SLOTS = {**LAYER_SLOTS, "stack": ("stack",)}
"""What a stack is made of."""

STACK_SETTINGS: dict[str, Any] = {"n_layers": 4, "pattern": None, "variants": {}, "layers": {}}
"""What else a stack's section holds, and what it is when nobody says."""

VARIANTS: dict[str, Any] = {"local": {"mask": {"name": "window"}}, "global": {}}
"""Variants that every stack has from the start."""

MODEL_SLOTS: dict[str, tuple[str, ...]] = {"embedding": ("embedding",), "head": ("head",), "init": ("init",)}
"""What a model has outside its stacks."""

RUN_SLOTS: dict[str, tuple[str, ...]] = {
    "data": ("data",),
    "tokenizer": ("tokenizer",),
    "objective": ("objective",),
    "optimizer": ("optimizer",),
    "schedule": ("schedule",),
}
"""What trains a model."""

SLOTS = {*STACK_SLOTS, *MODEL_SLOTS, *RUN_SLOTS, "model"}
"""Every slot of the whole config."""

RUN_LISTS: dict[str, tuple[str, ...]] = {"callbacks": ("callback",), "logger": ("logger",)}
"""Of these a run has any number."""

BLOCK_SLOTS = {**STACK_SLOTS, **MODEL_SLOTS, **RUN_SLOTS, **RUN_LISTS}
"""Everything that blocks fill, and their families."""

SETTINGS: dict[str, Any] = {
    "seed": int,
    "name": str | None,
    "plugins": list[str],
    "params": dict[str, Any],
    "trainer": dict[str, Any],
    "compile": bool,
    "backend": str,
    "dry_run": bool,
    "ckpt_path": str | None,
    "rerun": str | None,
}
"""Plain values of a run, and their types."""

SEEDS = 2**63
"""Seeds are below this, so that every generator takes them."""

FALLBACK = {
    "mixer": "attention",
    "cross_attention": "auto",
    "position": "auto",
    "mask": "auto",
    "layer": "sequential",
    "stack": "plain",
}
"""What fills a slot of which nobody, not even a preset, says anything."""

CROSS = "mha"
"""What ``cross_attention=auto`` means: attention that can read any memory."""

CROSS_INHERITS = ("n_heads", "head_dim", "dropout")
"""Choices made for the attention slot that ``cross_attention=auto`` takes over: they have to fit the same width."""
