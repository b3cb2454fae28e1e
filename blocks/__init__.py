"""The blocks. Importing this registers every one of them; folders import their own files."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

for _family in iter_modules([str(Path(__file__).parent)]):
    if _family.ispkg:
        import_module(f"blocks.{_family.name}")
