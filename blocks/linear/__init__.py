"""Mixers that remember a matrix of fixed size instead of all keys and values: their cost is linear in length."""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")
