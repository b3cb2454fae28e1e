"""Plain containers out of OmegaConf: files are read, interpolations resolved, values of the environment marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from registry.errors import ConfigError
from registry.slots import refuse_targets


def read_yaml(file: Path) -> Any:
    """What a YAML file holds, in plain containers; interpolations stay as they are written.

    Raises:
        ConfigError: It can not be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text)
        if isinstance(root, yaml.ScalarNode) or root is None:
            single = None if root is None or root.tag.endswith(":null") else root.value
            return single  # OmegaConf makes a mapping of a single text
        return OmegaConf.to_container(OmegaConf.create(text))
    except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file}: must be a YAML file that can be read, but: {reason}.") from error


def to_yaml(config: Any) -> str:
    """A config as YAML, for a person to read."""
    return str(OmegaConf.to_yaml(OmegaConf.create(config)))


class Secret(str):
    """The value of an environment variable. ``source``: how the config names it, which may be written down."""

    source: str

    def __new__(cls, value: str, source: str) -> Secret:
        made = super().__new__(cls, value)
        made.source = source
        return made

    def __repr__(self) -> str:
        return repr(self.source)

    __str__ = str.__str__


def interpolated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in plain containers, interpolations resolved, and values of the environment marked.

    Raises:
        ConfigError: An interpolation names nothing; ``_target_`` stands somewhere.
    """
    problems: list[str] = []
    refuse_targets(config, problems.append)
    try:
        made = _plain(OmegaConf.create(dict(config)), "", problems)
    except OmegaConfBaseException as error:
        raise ConfigError(f"config: must hold values, but {_reason(error)}.") from error
    if problems:
        raise ConfigError("\n".join(problems))
    return _marked(made)  # type: ignore[no-any-return]


def _plain(node: Any, path: str, problems: list[str]) -> Any:
    if isinstance(node, DictConfig):
        keys = [] if node._is_none() or node._is_missing() else list(node)
        return None if node._is_none() else {str(k): _leaf(node, k, f"{path}.{k}".lstrip("."), problems) for k in keys}
    return [_leaf(node, i, f"{path}.{i}", problems) for i in range(len(node))]


def _leaf(parent: Any, key: Any, path: str, problems: list[str]) -> Any:
    raw = parent._get_node(key)
    try:
        value = "???" if OmegaConf.is_missing(parent, key) else parent[key]
    except OmegaConfBaseException as error:
        problems.append(f"{path}: must be a value, but {_reason(error)}.")
        return None
    if isinstance(value, DictConfig | ListConfig):
        value = _plain(value, path, problems)
    if isinstance(value, str) and raw._is_interpolation():
        return Secret(value, str(raw._value()))
    return value


def _reason(error: BaseException) -> str:
    parts = str(error).splitlines()[0].partition("resolving interpolation: ")
    return (parts[2] or parts[0]).strip('"')


def _marked(made: Any) -> Any:
    """Keep the mark on what holds a value of the environment, however it got there; drop it from the rest."""
    secrets: list[str] = []

    def gather(value: Any) -> None:
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            gather(one)
        if isinstance(value, Secret) and "oc.env" in value.source:
            secrets.append(str(value))

    def keep(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: keep(v) for k, v in value.items()}
        if isinstance(value, list):
            return [keep(v) for v in value]
        if isinstance(value, Secret) and not any(s and s in value for s in secrets):
            return str(value)
        return value

    gather(made)
    return keep(made)


def revealed(spec: Any, secrets: bool = True) -> Any:
    """A copy of ``spec`` in plain containers, with values of the environment or only their names."""
    if isinstance(spec, dict):
        return {k: revealed(v, secrets) for k, v in spec.items()}
    if isinstance(spec, list | tuple):
        return [revealed(v, secrets) for v in spec]
    if isinstance(spec, Secret):
        return str(spec) if secrets else spec.source
    return spec
