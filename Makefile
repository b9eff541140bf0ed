# make up: the demo. make test: lint, types and every test. Both make .venv when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up test clean

up: $(VENV)/.all
	$(BIN)/rheos up --demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p rheos -p stream -p indexer -p trainer
	$(BIN)/lint-imports
	$(BIN)/deptry .
	.ci/chromium
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term

clean:
	rm -rf $(VENV)

# A stamp per set of packages, so that the second call is quick. The dev extra contains the other.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.all $@

$(VENV)/.all: pyproject.toml | $(VENV)/bin/python
	@echo "installing Rheos into $(VENV); PyTorch alone is 4.6 GB, once"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) is not installed: install Python 3.11 or newer, or say make PYTHON=/path/to/python" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Rheos needs 3.11 or newer: make PYTHON=/path/to/python" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
