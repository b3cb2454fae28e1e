"""Holds what help and completion read from files to what importing them registers."""

from registry import REGISTRY
from registry.options import options
from registry.plugins import ROOT, load_builtin
from registry.scan import builtin
from registry.values import fit

load_builtin()
OURS = [n for n in REGISTRY.names() if REGISTRY[n].where.startswith((f"{ROOT}/blocks/", f"{ROOT}/training/"))]


def test_every_name_is_found_without_importing_it():
    assert [found.name for found in builtin()] == OURS


def test_choices_and_first_lines_are_found_too():
    for found in builtin():
        entry = REGISTRY[found.name]
        assert found.doc == entry.doc, found.name
        assert list(found.choices) == list(entry.choices), found.name
        for key, choice in found.choices.items():
            assert choice.doc == entry.choices[key].doc, (found.name, key)


def test_help_offers_what_a_run_takes():
    def offered(entries):
        return {(o.group, o.name) for o in options(entries)}

    assert offered(builtin()) == offered([REGISTRY[n] for n in OURS])


def test_every_default_fits_its_type():
    for name in OURS:
        for choice in REGISTRY[name].choices.values():
            if choice.default != "???":
                fit(choice.default, choice.type, lambda value, families: value)


def test_every_block_completes_to_plain_containers():
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list | tuple):
            return all(plain(v) for v in value)
        return value is None or isinstance(value, str | int | float | bool)

    for name in OURS:
        if all(c.default != "???" for c in REGISTRY[name].choices.values()):
            assert plain(REGISTRY.complete(name)), name
