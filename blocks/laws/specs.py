"""Small layers, stacks and models, as specs, in which blocks are tried."""

from __future__ import annotations

from typing import Any

from blocks.laws.trying import D
from registry import REGISTRY

Spec = dict[str, Any]


def layer_spec(**parts: Any) -> Spec:
    """The spec of a plain layer of small parts, with some of them replaced."""
    return {
        "name": "layer/sequential",
        "mixer": {"name": "attention/mha", "n_heads": 4},
        "mask": "mask/causal",
        "position": "position/rope",
        "ffn": "ffn/mlp",
        "residual": {"name": "residual/pre_norm", "norm": "norm/rms"},
        **parts,
    }


def stack_spec(stack: str, foot: tuple[str | Spec, ...] = (), **parts: Any) -> Spec:
    """The spec of a small stack of two layers made of ``parts``."""
    return {"name": stack, "layers": [layer_spec(**parts)] * 2, "norm": "norm/rms", "position": list(foot)}


def model_spec(name: str, **parts: Any) -> Spec:
    """The spec of a small model whose layers are made of ``parts``."""
    entry = REGISTRY[name]
    stacks = {}
    for key, choice in entry.choices.items():
        if "stack" in choice.families:
            causal = key == "decoder"
            mask = {"mask": "mask/causal" if causal else "mask/full"}
            cross = {"cross_attention": "attention/mha"} if causal and "encoder" in entry.choices else {}
            layers = [layer_spec(**{**mask, **cross, **parts})] * 2
            stacks[key] = {"name": "stack/plain", "layers": layers, "norm": "norm/rms"}
    return {"name": name, "d_model": D, "max_length": 64, **stacks}
