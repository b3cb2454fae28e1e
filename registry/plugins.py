"""Where names come from: our own packages, installed ones, and what a person names for one run.

Three ways in for blocks of others, all before a config is composed:

- the entry-point group ``blockwright.blocks`` of an installed package;
- ``plugins=[my.module, ./file.py]`` on the command line;
- the environment variable ``BLOCKWRIGHT_PLUGINS``, the same separated by commas (for shells and CI).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import blockwright
from registry.errors import ConfigError, MachineError

ENTRY_POINTS = "blockwright.blocks"
VARIABLE = "BLOCKWRIGHT_PLUGINS"
ROOT = Path(__file__).resolve().parents[1]


def load(plugins: Iterable[str] = ()) -> list[str]:
    """Import every block there is: ours, installed ones, the environment's, and ``plugins``.

    Returns:
        What to hand to this function to have the same blocks in another process or folder: the
        plugins of the environment and ``plugins``, files as absolute paths.

    Raises:
        ConfigError: There is no such module or file.
    """
    load_builtin()
    load_installed()
    wanted = [*filter(None, os.environ.get(VARIABLE, "").split(",")), *plugins]
    loaded = []
    for plugin in wanted:
        try:
            loaded.append(load_one(plugin.strip()))
        except ModuleNotFoundError as error:
            if reason := blockwright.missing_below_ours(error):
                raise ConfigError(f"plugins: in {plugin.strip()}, {reason}") from error
            raise
    return list(dict.fromkeys(loaded))


def load_builtin() -> None:
    """Import our own blocks and what trains them."""
    if found := blockwright.taken():
        raise MachineError("\n".join(found))
    importlib.import_module("blocks")
    training = importlib.import_module("training")
    for family in sorted(Path(str(training.__file__)).parent.iterdir()):
        if (family / "__init__.py").exists():
            importlib.import_module(f"training.{family.name}")


def load_installed() -> None:
    """Import the blocks of installed packages; one that breaks is left out with a warning."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            warnings.warn(
                f"the blocks of {point.value!r} are left out: importing them ended with "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def load_one(plugin: str) -> str:
    """Import a module by its dotted name or a file by its path, once.

    Returns:
        The same plugin, as it can be found from any folder.

    Raises:
        ConfigError: There is no such module or file.
    """
    if plugin.endswith(".py") or "/" in plugin or os.sep in plugin:
        return _load_file(Path(plugin).expanduser().resolve(), plugin)
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:  # a console command does not look here by itself
        sys.path.append(folder)
    try:
        importlib.import_module(plugin)
    except ModuleNotFoundError as error:
        if error.name is None or not (plugin == error.name or plugin.startswith(f"{error.name}.")):
            raise  # the plugin is there; what it imports is not
        path = f"./{plugin.replace('.', '/')}.py"
        raise ConfigError(
            f"plugins: no module is named {plugin!r}. A file must be named by its path ({path})."
        ) from error
    return plugin


def _load_file(file: Path, written: str) -> str:
    if not file.is_file():
        raise ConfigError(f"plugins: there is no file {written!r} ({file}).")
    name = f"blockwright_plugin_{file.stem}_{hashlib.sha1(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return str(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"plugins: {written!r} must be a Python file, but its name does not end in .py.")
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:  # what stands beside it
        sys.path.append(str(file.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return str(file)
