"""Names on one side, constructors on the other. Knows nothing of torch, Lightning or Hydra."""

from registry.core import REGISTRY, Factory, Registry, SameNumbers, factory, names, register
from registry.errors import BlockwrightError, ConfigError

__all__ = [
    "REGISTRY",
    "BlockwrightError",
    "ConfigError",
    "Factory",
    "Registry",
    "SameNumbers",
    "factory",
    "names",
    "register",
]
