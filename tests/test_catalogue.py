"""The catalogue page is in step with the registry, and its figures cover every name that is compared."""

import json
import re

import pytest

from benchmarks import catalogue
from registry import REGISTRY, plugins
from registry.show import sources

plugins.load()


def test_the_page_is_in_step_with_the_registry():
    assert catalogue.PAGE.read_text(encoding="utf-8") == catalogue.page(), "run: make catalogue"


@pytest.mark.parametrize("name", REGISTRY.names())
def test_a_source_is_one_link_at_the_end_of_its_line(name):
    for line in sources(REGISTRY[name]):
        assert line.count("http") == 1, line
        assert re.search(r"https?://\S+[\w/](\)| \(.*\))?$", line), line


@pytest.mark.parametrize("slot", catalogue.COMPARED)
def test_every_name_was_compared(slot):
    figures = json.loads(catalogue.FIGURES.read_text(encoding="utf-8"))
    measured = {row["name"] for model in figures[slot].values() for row in model.values()}
    assert measured == {*REGISTRY.names(*catalogue.COMPARED[slot])}
