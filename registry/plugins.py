"""Where names come from: our own packages, installed ones, and what a person names for one run.

Three ways in for blocks of others, all before a config is composed:

- the entry-point group ``blockwright.blocks`` of an installed package;
- ``plugins=[my.module, ./file.py]`` on the command line;
- the environment variable ``BLOCKWRIGHT_PLUGINS``, the same separated by commas (for shells and CI).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import blockwright
from registry.errors import ConfigError, MachineError
from registry.neighbours import PREFIX, digest_now, import_file, module_of, sources_of
from registry.program import uninterrupted

ENTRY_POINTS = "blockwright.blocks"
VARIABLE = "BLOCKWRIGHT_PLUGINS"
ROOT = Path(__file__).resolve().parents[1]


def load(plugins: Iterable[str] = ()) -> list[str]:
    """Import every block there is: ours, installed ones, the environment's, and ``plugins``.

    Returns:
        What to hand to this function to have the same blocks in another process or folder: the
        plugins of the environment and ``plugins``, files as absolute paths.

    Raises:
        ConfigError: There is no such module or file, or it can not be imported as it stands.
    """
    load_builtin()
    return load_others(plugins)


def load_others(plugins: Iterable[str] = ()) -> list[str]:
    """``load`` without our own blocks: none of them is imported that no plugin needs."""
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
    with uninterrupted():
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
    """Import a module by its dotted name or a file by its path, once, whichever way it is named.

    Returns:
        The same plugin, as it can be found from any folder.

    Raises:
        ConfigError: There is no such module or file, or it can not be imported as it stands.
    """
    if plugin.endswith(".py") or "/" in plugin or os.sep in plugin:
        return _load_file(Path(plugin).expanduser().resolve(), plugin)
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:  # a console command does not look here by itself
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        if plugin not in sys.modules:
            found = importlib.util.find_spec(plugin)
            file = Path(found.origin).resolve() if found and found.has_location and found.origin else None
            if file is not None and module_of(file) is not None:
                return str(file)
        with sentences(plugin):
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
    if file.suffix != ".py":
        raise ConfigError(f"plugins: {written!r} must be a Python file, but its name does not end in .py.")
    with sentences(str(file)):
        import_file(file)
    return str(file)


@contextlib.contextmanager
def sentences(plugin: str) -> Iterator[None]:
    """Says in a sentence, with file and line, what keeps a file from being imported; other errors are bugs in it.

    Raises:
        ConfigError: It is not Python, or imports from beside it what is not there.
    """
    try:
        yield
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}" if error.filename else plugin  # zero bytes stand in no line
        text = f" ({error.text.strip()})" if error.text and error.text.strip() else ""
        raise ConfigError(f"plugins: {where} must be Python, but got: {error.msg}{text}.") from error
    except ImportError as error:
        private = (error.name or "").startswith(PREFIX)
        if not private and "relative import" not in str(error):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        asked = f"`{frames[-1].line}`" if frames[-1].line else "an import"
        rule = "import what is there" if private else "import from its own package"
        raise ConfigError(
            f"plugins: {frames[-1].filename}:{frames[-1].lineno} must {rule}, but got {asked}. What stands in the "
            "folder of a plugin, or in its package, can be imported."
        ) from error


# Sources ----------------------------------------------------------------------------------------------------------


def sources(plugins: Iterable[str]) -> dict[str, str]:
    """SHA-256 by file: of loaded plugins, of installed ones, and of what they imported from beside them."""
    modules = [module_of(Path(p)) if p.endswith(".py") else sys.modules.get(p) for p in plugins]
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    modules += [sys.modules.get(point.value.partition(":")[0].strip()) for point in points]
    found: dict[str, str] = {}
    for module in modules:
        found |= sources_of(module) if module is not None else {}
    return found


def on_disk(recorded: Mapping[str, str]) -> dict[str, str]:
    """What the files of ``sources`` hold now."""
    return {file: digest for file in recorded if (digest := digest_now(file))}


def changed(recorded: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """A line for each file whose source is not what was recorded, wherever it lies now."""
    lines = []
    for file, digest in recorded.items():
        if digest not in here.values():
            now = f"its SHA-256 is {here[file][:12]}, and" if file in here else "it is not used now, and its SHA-256"
            lines.append(f"plugins: the source of {file} is not what was recorded: {now} was {digest[:12]}.")
    return lines
