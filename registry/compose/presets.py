"""Presets: YAML files that stand between the defaults and the words of the command line.

``experiment=local_global`` takes ``conf/experiment/local_global.yaml``, ``experiment=./mine.yaml`` a file of one's own.
A preset holds what it chooses, by path, and may begin with a ``defaults`` list: other presets, and blocks as
``override /attention: gqa`` (which is the same as ``attention: gqa``). It is read as one level, or several in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from registry.compose.values import read_yaml
from registry.errors import ConfigError
from registry.tables import SLOTS
from registry.values import guess

CONF = Path(__file__).resolve().parents[2] / "conf"
ENDINGS = (".yaml", ".yml")


def groups() -> dict[str, list[str]]:
    """Every group of presets, with the names that our own files have."""
    found: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        if file.parent != CONF:
            group, *deeper = file.relative_to(CONF).with_suffix("").parts
            found.setdefault(group, []).append("/".join(deeper))
    return found


def is_file(value: Any) -> bool:
    """A value that names a file of one's own, not one of ours."""
    return isinstance(value, str) and value.lower().endswith(ENDINGS)


def find(group: str, name: Any, beside: Path | None = None) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: There is none.
    """
    if is_file(name):
        file = Path(name).expanduser()
        file = (beside.parent / file if beside and not file.is_absolute() else file).absolute()
        if not file.is_file():
            there = "is a folder" if file.is_dir() else "is not there"
            raise ConfigError(f"{group}: {str(name)!r} must be a file, but {file} {there}.")
        return file
    if isinstance(name, str) and Path(name).suffix and Path(name).expanduser().is_file():
        raise ConfigError(f"{group}: a file of your own must end in {' or '.join(ENDINGS)}, but got {name!r}.")
    known = groups().get(group, [])
    if name not in known:
        what = "sweep" if group == "sweep" else "preset"
        raise ConfigError(
            f"{group}: no {what} is named {name!r}{guess(name, known)} There are: {', '.join(known) or 'none'}. "
            f"A file of your own must be named by its path: {group}=./mine.yaml."
        )
    return CONF / group / f"{name}.yaml"


def read(group: str, chosen: Any) -> Iterator[dict[str, Any]]:
    """The levels of one preset, or of a list of presets in order.

    Raises:
        ConfigError: A file is not there, or is not a mapping from paths to values.
    """
    for name in chosen if isinstance(chosen, list | tuple) else [chosen]:
        if name is not None:
            yield from _levels(find(group, name), group, ())


def has_no_values(path: str) -> str:
    """The sentence for a path below a group of presets."""
    group, _, below = path.partition(".")
    return (
        f"{path}: must be written without {group!r}, as {below}=..., because {group} chooses a preset, whose values "
        "are changed where they stand in the config."
    )


def _levels(file: Path, group: str, above: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    if file in above:
        raise ConfigError(f"{group}: {file} must not be a part of itself.")
    held = read_yaml(file)
    if not isinstance(held, Mapping):
        raise ConfigError(
            f"{group}: {file} must be a mapping from paths to values, as in attention: gqa, but it holds "
            f"{'nothing' if held is None else repr(held)[:60]}."
        )
    content = {str(k): v for k, v in held.items() if k != "defaults"}
    for key in content:
        if key == "rerun":
            raise ConfigError(f"{group}: {file} must not choose a run to do again; say rerun=... on the command line.")
        if key in groups():
            raise ConfigError(
                f"{group}: {file} must choose another preset in its list defaults, as in '- /{key}: name', but it has "
                f"a value {key!r}."
            )
    if "plugins" in content:
        content["plugins"] = _beside(content["plugins"], file)
    own = _packaged(content, file)
    defaults = held.get("defaults") or []
    if not isinstance(defaults, list):
        raise ConfigError(f"{group}: defaults in {file} must be a list, but got {defaults!r}.")
    for entry in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        if entry == "_self_":
            yield own
        else:
            yield from _default(entry, file, group, (*above, file))


def _default(entry: Any, file: Path, group: str, above: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    """One entry of a ``defaults`` list: another preset, or a block in a slot."""
    if is_file(entry):
        entry = {group: entry}
    elif isinstance(entry, str):
        entry = {entry.rpartition("/")[0].lstrip("/") or group: entry.rpartition("/")[2]}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"{group}: each of the defaults in {file} must be 'group: name', but got {entry!r}.")
    ((key, name),) = entry.items()
    where = re.sub(r"^override\s+", "", str(key)).lstrip("/")
    if name is None:
        return
    if where.rpartition("/")[2] in SLOTS and where.count("/") < 2:
        yield _nested(where.split("/"), name)
    elif where.partition("/")[0] in groups():
        yield from _levels(find(where, name, file), where, above)
    else:
        raise ConfigError(
            f"{group}: the defaults in {file} must choose presets or blocks, but {where!r} is neither"
            f"{guess(where, [*groups(), *SLOTS])} Presets: {', '.join(groups())}. Files end in {' or '.join(ENDINGS)}."
        )


def _beside(plugins: Any, file: Path) -> Any:
    """Plugins that a preset names: a file by a path from the folder of the preset, a module as it is."""
    if isinstance(plugins, list):
        return [_beside(plugin, file) for plugin in plugins]
    is_path = isinstance(plugins, str) and (plugins.endswith(".py") or "/" in plugins) and not plugins.startswith("~")
    return str(file.parent / plugins) if is_path else plugins


def _packaged(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """What a file holds, at the path that its ``# @package`` line names; without one, at the root."""
    found = re.search(r"^#\s*@package\s+(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None or found[1] in ("_global_", "_group_"):
        return content
    return _nested(found[1].split("."), content)


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[no-any-return]
