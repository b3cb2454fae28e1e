# The two commands of the README. Each makes .venv, installs what is pinned in constraints.txt, and runs.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$n)

.PHONY: train test test-all test-matrix lint format catalogue clean

train: .venv/installed  ## train the default model on real text
	$(BIN)/python train.py

test: .venv/installed  ## all tests; combinations are sampled
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-all: .venv/installed  ## all tests, with every combination
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --all

test-matrix: .venv/installed  ## all tests on the lowest and the newest versions of all that is stated; many downloads
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[matrix]'
	. $(BIN)/activate && nox

lint: .venv/installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python must be 3.11 or newer, but $(PYTHON) is not. Name another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 5; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,lint]'
	@touch $@

catalogue: .venv/installed  ## write docs/catalogue.md anew, from the registry and the figures in docs/catalogue.json
	$(BIN)/python benchmarks/catalogue.py page

clean:
	rm -rf .venv .nox build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
