"""Names and choices of our own blocks, read from their files without running them.

Help and tab completion answer in a moment because of this: importing the blocks means importing torch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.core import MISSING, Choice, argument_docs
from registry.plugins import ROOT


@dataclass(frozen=True)
class Found:
    """A registered name as its file shows it. A choice's type is the annotation as it is written."""

    name: str
    doc: str
    choices: Mapping[str, Choice]

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]

    @property
    def short(self) -> str:
        return self.name.partition("/")[2]


def builtin() -> list[Found]:
    """Every name that our own packages register, in alphabetical order."""
    files = [f for package in ("blocks", "training") for f in (ROOT / package).rglob("*.py")]
    return sorted((found for file in files for found in read(file)), key=lambda found: found.name)


def read(file: Path) -> Iterator[Found]:
    """The names that one file registers with a decorator."""
    text = file.read_text(encoding="utf-8")
    if "@register(" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register":
                name = _literal(call.args[0])
                defaults = {k.arg: _literal(k.value) for k in call.keywords if k.arg}
                doc = ast.get_docstring(node) or ""
                yield Found(name, doc.partition("\n")[0], _choices(node, defaults, argument_docs(doc)))


def _choices(node: ast.ClassDef | ast.FunctionDef, defaults: dict[str, Any], docs: dict[str, str]) -> dict[str, Choice]:
    inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    maker = node if isinstance(node, ast.FunctionDef) else inits[0] if inits else None
    if maker is None:
        return {}
    choices = {}
    for argument, default in zip(maker.args.kwonlyargs, maker.args.kw_defaults, strict=True):
        kind = ast.unparse(argument.annotation) if argument.annotation else ""
        value = defaults.get(argument.arg, MISSING if default is None else _literal(default))
        families = ("stack",) if re.match(r"Factory\[Stack\b", kind) else ()
        choices[argument.arg] = Choice(argument.arg, kind, value, docs.get(argument.arg, ""), families)
    return choices


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
