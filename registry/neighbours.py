"""Imports a file by its path, with what stands beside it as its own.

``import helpers`` in a plugin means the ``helpers.py`` beside it, also where a plugin in another folder has one of the
same name. For this, a folder is a package under a private name, its files are modules of that package, and an import of
what stands in the folder is compiled as an import from the package. Names of the standard library and of this project
always mean those. A file that stands in a package (a folder with an ``__init__.py``) is a module of that package.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from blockwright import NAMES

PREFIX = "blockwright_plugins_"
DIGESTS: dict[str, str] = {}
"""SHA-256 of the sources that were imported, by file."""


def import_file(file: Path) -> ModuleType:
    """Import a Python file by its resolved path; the same file gives the same module."""
    importlib.invalidate_caches()
    if (module := module_of(file)) is not None:
        return module
    folder, parts = _package_of(file)
    if len(parts) > 1 and _file_of(parts[0]) == folder / parts[0] / "__init__.py":
        return importlib.import_module(".".join(parts))
    base = _base(folder)
    if parts[-1] == "__init__":
        return importlib.import_module(".".join([base, *parts[:-1]]))
    for depth in range(1, len(parts)):
        importlib.import_module(".".join([base, *parts[:depth]]))
    name = ".".join([base, *parts])
    spec = importlib.util.spec_from_file_location(name, file, loader=Loader(name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def module_of(file: Path) -> ModuleType | None:
    """The module that was imported from a file, under whatever name."""
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        alike = isinstance(origin, str) and os.path.basename(origin) == file.name and name != "__main__"
        if alike and Path(str(origin)).resolve() == file:
            return module
    return None


def sources_of(module: ModuleType) -> dict[str, str]:
    """SHA-256 by file: of the module, and of what stands beside it or in its package and was imported with it."""
    top = module.__name__.partition(".")[0]
    if top in NAMES:
        return {}
    loaded = {n: f for n, m in list(sys.modules.items()) if isinstance(f := getattr(m, "__file__", None), str)}
    if top == module.__name__ and not hasattr(module, "__path__"):
        files = _imported_beside(Path(loaded[top]), loaded)
    else:
        files = {f for n, f in loaded.items() if n.partition(".")[0] == top}
    return {file: _digest(file) for file in sorted(files)}


def digest_now(file: str) -> str | None:
    """SHA-256 of a file as it lies on the disk; None where it can not be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def _digest(file: str) -> str:
    return DIGESTS.setdefault(file, digest_now(file) or "")


def _imported_beside(file: Path, loaded: dict[str, str]) -> set[str]:
    """The file of a top-level module, and those that it and they import from its folder."""
    found: set[str] = set()
    waiting = [str(file)]
    while waiting:
        path = waiting.pop()
        found.add(path)
        tree = ast.parse(Path(path).read_bytes())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level]
        tops = {name.partition(".")[0] for name in names} - {*NAMES}
        beside = {f for n, f in loaded.items() if n.partition(".")[0] in tops and Path(f).is_relative_to(file.parent)}
        waiting += [f for f in beside if f not in found and f.endswith(".py")]
    return found


def _package_of(file: Path) -> tuple[Path, list[str]]:
    """The folder from which a file is imported, and its dotted name from there."""
    stem = file.stem
    if not stem.isidentifier():
        stem = f"{re.sub(r'[^0-9A-Za-z_]', '_', stem)}_{_short(stem)}"
    folder, parts = file.parent, [stem]
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, parts


def _base(folder: Path) -> str:
    """The private package that a folder is."""
    name = f"{PREFIX}{_short(str(folder))}"
    if name not in sys.modules:
        package = ModuleType(name, f"What stands in {folder}.")
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    return name


def _short(text: str) -> str:
    return hashlib.sha1(os.fsencode(text)).hexdigest()[:10]


def _file_of(top: str) -> Path | None:
    """The file that an ordinary import of a top-level name would read."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that was put together by hand
        return None
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


class Finder:
    """Finds modules of the private packages."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(name, spec.loader.path)
        return spec


FINDER = Finder()


class Loader(SourceFileLoader):
    """Compiles a file of a private package from its source, each time: a cached file would serve other imports too."""

    def get_code(self, fullname: str) -> Any:
        source = self.get_data(self.path)
        DIGESTS[self.path] = hashlib.sha256(source).hexdigest()
        return compile(self.rewritten(ast.parse(source, self.path)), self.path, "exec", dont_inherit=True)

    def rewritten(self, tree: ast.Module) -> ast.Module:
        """``tree`` with imports of neighbours as imports from the private package."""
        made: ast.Module = Neighbours(self.name, Path(self.path)).visit(tree)
        return ast.fix_missing_locations(made)


class Neighbours(ast.NodeTransformer):
    """Turns absolute imports of what stands beside a file into imports from its private package."""

    def __init__(self, name: str, file: Path) -> None:
        self.base = name.partition(".")[0]
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self.file = file
        self.homes: dict[str, str] = {}

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for alias in node.names:
            top = alias.name.partition(".")[0]
            home = self._home(top)
            if not home:
                made.append(ast.Import([alias]))
                continue
            full = f"{home}.{alias.name}"
            made.append(ast.Import([ast.alias(full, alias.asname or top)]))
            if alias.asname is None and alias.name != top:  # the submodule is imported, the top is named
                made.append(ast.Import([ast.alias(f"{home}.{top}", top)]))
        return [ast.copy_location(one, node) for one in made]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        if not node.level and node.module and (home := self._home(node.module.partition(".")[0])):
            node.module = f"{home}.{node.module}"
        return node

    def _home(self, top: str) -> str:
        """The package in which a name stands beside the file; empty where it means something else."""
        if top not in self.homes:
            self.homes[top] = next(self._homes(top), "")
        return self.homes[top]

    def _homes(self, top: str) -> Iterator[str]:
        if top in sys.stdlib_module_names or top in NAMES:
            return
        beside = sys.modules[self.base].__path__
        if self._stands(top, beside):
            yield self.base
        elif top not in sys.modules and _file_of(top) is None:  # else it is installed
            if self.package != self.base and self._stands(top, [str(self.file.parent)]):
                yield self.package
            elif PathFinder.find_spec(top, beside) is not None:  # a folder without an __init__.py
                yield self.base

    def _stands(self, top: str, folders: Sequence[str]) -> bool:
        spec = PathFinder.find_spec(top, folders)
        return spec is not None and spec.loader is not None and Path(spec.origin or "") != self.file
