"""What a test registers is gone after it."""

import pytest

from registry import REGISTRY
from registry.plugins import load_builtin

load_builtin()


@pytest.fixture(autouse=True)
def registry_as_it_was():
    before = dict(REGISTRY._entries)
    yield
    REGISTRY._entries.clear()
    REGISTRY._entries.update(before)
