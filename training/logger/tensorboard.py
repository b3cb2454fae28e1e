"""Numbers as curves in a browser: https://www.tensorflow.org/tensorboard"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from registry import register
from registry.errors import MachineError


@register("logger/tensorboard")
class TensorBoard(TensorBoardLogger):
    """Writes event files for TensorBoard into ``tensorboard/``; needs the package of that name.

    Raises:
        MachineError: Neither tensorboard nor tensorboardX is installed.
    """

    def __init__(self, folder: Path, /) -> None:
        if not (find_spec("tensorboard") or find_spec("tensorboardX")):
            raise MachineError("the package tensorboard must be installed, but is not. Run: pip install tensorboard")
        super().__init__(save_dir=folder, name="tensorboard", version="")
