"""How a model knows order: added at the foot of a stack, or at work inside attention."""

from importlib import import_module
from pkgutil import iter_modules

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")
