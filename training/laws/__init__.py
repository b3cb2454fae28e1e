"""The promises of ``training.contracts`` as code, for our blocks and for yours.

    from training.laws import laws_of

    for law in laws_of(optimizer):
        law(optimizer)

Data and loggers are made several times by their laws, and are handed over as ``Source`` and ``Writer``.
"""

from blocks.laws.check import Bench
from training.laws.cases import cases
from training.laws.data import Source
from training.laws.effects import observe
from training.laws.optimizers import Descent
from training.laws.running import Writer
from training.laws.table import LAWS, laws_of

BENCH = Bench(cases, laws_of, observe)
"""How every registered name is tried, of models and of what trains them."""

__all__ = ["BENCH", "LAWS", "Descent", "Source", "Writer", "laws_of"]
