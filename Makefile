# Two commands: `make demo` (the whole way once, on real data) and `make test`. Each sets up .venv first.

VENV := .venv
BIN := $(VENV)/bin
# The newest Python that raytl supports, unless PYTHON says which.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(if $(shell $(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo yes),$(name))))

.PHONY: demo test test-fast lint format types setup lock clean compiled

demo: compiled
	$(BIN)/raytl demo

# Two files at a time, in the order of tests/conftest.py: pytest-xdist's own begins with those of the most tests, and ends
# with the slowest ones.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The demo is held to its accuracy within its time budget, and so has the machine to itself.
DEMO := tests/cli/test_cli_demo.py

test: compiled
	$(BIN)/python -m pytest $(DEMO)
	$(PYTEST) --ignore $(DEMO)

test-fast: compiled
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

types: $(VENV)/.installed
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.installed

# A search starts a dozen processes, and where Python may not write bytecode each of them would compile what it imports.
compiled: $(VENV)/.installed
	@$(BIN)/python -m compileall -q raytl

# Exact versions come from the lock; the package itself is linked, so that edits show without a new install.
$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "raytl needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock: $(VENV)/.installed
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --upgrade --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
