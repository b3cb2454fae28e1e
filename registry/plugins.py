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
from registry.errors import BlockwrightError, ConfigError, MachineError
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
    return list(dict.fromkeys(load_one(plugin.strip()) for plugin in wanted))


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


def load_one(plugin: str, where: str = "plugins") -> str:
    """Import a module by its dotted name or a file by its path, once, whichever way it is named.

    Args:
        plugin: The name or the path.
        where: Where it is named, for error messages.

    Returns:
        The same plugin, as it can be found from any folder.

    Raises:
        ConfigError: There is no such module or file, or it can not be imported as it stands.
    """
    if plugin.endswith(".py") or "/" in plugin or os.sep in plugin:
        return _load_file(Path(plugin).expanduser().resolve(), plugin, where)
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:  # a console command does not look here by itself
        sys.path.append(folder)
    importlib.invalidate_caches()
    with sentences(plugin, where):
        if plugin not in sys.modules:
            found = importlib.util.find_spec(plugin)
            file = Path(found.origin).resolve() if found and found.has_location and found.origin else None
            if file is not None and module_of(file) is not None:
                return str(file)
        importlib.import_module(plugin)
    return plugin


def _load_file(file: Path, written: str, where: str) -> str:
    if not file.is_file():
        raise ConfigError(f"{where}: there is no file {written!r} ({file}).")
    if file.suffix != ".py":
        raise ConfigError(f"{where}: {written!r} must be a Python file, but its name does not end in .py.")
    with sentences(str(file), where):
        import_file(file)
    return str(file)


@contextlib.contextmanager
def sentences(plugin: str, where: str = "plugins") -> Iterator[None]:
    """Says in a sentence, with file and line, what keeps a plugin from being imported.

    Args:
        plugin: Its dotted name, or its file.
        where: Where it is named, for error messages.

    Raises:
        ConfigError: There is no such module, or importing it ended with an exception or with the end of the program.
    """
    try:
        yield
    except BlockwrightError:
        raise
    except SyntaxError as error:
        if error.filename and error.filename.startswith("<"):  # text that the plugin evaluates
            raise ConfigError(f"{where}: {_why(plugin, error)}") from error
        place = f"{error.filename}:{error.lineno}" if error.filename else plugin  # zero bytes stand in no line
        text = f" ({_short(error.text)})" if error.text and error.text.strip() else ""
        raise ConfigError(f"{where}: {place} must be Python, but got: {_short(error.msg)}{text}.") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {_why(plugin, error)}") from error


def _why(plugin: str, error: BaseException) -> str:
    """A sentence on an exception that came of importing a plugin."""
    if isinstance(error, ModuleNotFoundError):
        if reason := blockwright.missing_below_ours(error):
            return f"in {plugin}, {reason}"
        if error.name is not None and f"{plugin}.".startswith(f"{error.name}."):
            path = f"./{plugin.replace('.', '/')}.py"
            return f"no module is named {plugin!r}. A file must be named by its path ({path})."
    frames = [
        traceback.FrameSummary(frame.f_code.co_filename, number, frame.f_code.co_name)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if _is_of(plugin, frame.f_code.co_filename, frame.f_globals.get("__name__") or "")
    ]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else plugin
    private = isinstance(error, ImportError) and (error.name or "").startswith(PREFIX)
    if private or (isinstance(error, ImportError) and "relative import" in str(error)):
        asked = f"`{_short(frames[-1].line)}`" if frames and frames[-1].line else "an import"
        rule = "import what is there" if private else "import from its own package"
        return (
            f"{place} must {rule}, but got {asked}. What stands in the folder of a plugin, or in its package, can be "
            "imported."
        )
    what = type(error).__name__ + (f": {_short(str(error))}" if str(error) else "")
    return f"{place} must be imported without an error, but got {what.rstrip('.')}. Mend the file."


def _is_of(plugin: str, file: str, module: str) -> bool:
    """Whether code is a plugin's own: of its file, of its package, or of what stands beside a file."""
    return file == plugin or module.startswith(PREFIX) or module.partition(".")[0] == plugin.partition(".")[0]


def _short(text: str, most: int = 200) -> str:
    """Text of others in one line for a terminal: what would steer it is escaped, and what is long is cut."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= most else f"{line[:most]}..."


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
