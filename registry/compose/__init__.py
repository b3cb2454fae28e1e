"""From a command line to jobs, each with a complete spec.

``words`` reads the command line, ``presets`` reads files that stand between the defaults and the words, ``levels``
puts one above the other, ``registry.slots`` resolves the result to a spec, and ``asked`` compares the spec with the
words. ``hydra`` and ``values`` are the only files that use Hydra and OmegaConf.
"""

from registry.compose.folders import reserve
from registry.compose.launch import Job, Record, launch
from registry.compose.messages import report, together

__all__ = ["Job", "Record", "launch", "report", "reserve", "together"]
