"""TensorBoard is asked for by name, and refused with what to install where it is not there."""

import re

import pytest

from registry.errors import MachineError
from training.logger.tensorboard import TensorBoard


def test_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("training.logger.tensorboard.find_spec", lambda name: None)
    sentence = "the package tensorboard must be installed, but is not. Run: pip install tensorboard"
    with pytest.raises(MachineError, match=f"^{re.escape(sentence)}$"):
        TensorBoard(tmp_path)
