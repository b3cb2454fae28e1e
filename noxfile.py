"""Tests what pyproject.toml states: the lowest versions, the newest, and both lines of Hydra (``make test-matrix``).

A Python that this machine does not have is skipped, by name. ``nox --list`` shows the sessions,
``nox -s floors`` runs one, and words after ``--`` go to pytest: ``nox -s newest-3.13 -- tests/registry``.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]  # what requires-python admits, up to the newest there is

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS[0])
def floors(session: nox.Session) -> None:
    """The lowest Python, and the lowest version of each package that pyproject.toml names."""
    test(session, "--resolution", "lowest-direct")


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest version of each package, on each Python."""
    test(session, "--upgrade")


@nox.session(python=PYTHONS[0])
def next_hydra(session: nox.Session) -> None:
    """The line of Hydra and OmegaConf that is being prepared."""
    previews = "hydra-core>=1.4.0rc1", "omegaconf>=2.4.0rc1"
    test(session, "--upgrade", "--prerelease", "if-necessary-or-explicit", *previews)


def test(session: nox.Session, *how: str) -> None:
    """Install the project with its tests, print the versions that were chosen, and run all tests."""
    session.install(*how, "--editable", ".[test]")
    session.run("uv", "pip", "list", external=True)
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)
