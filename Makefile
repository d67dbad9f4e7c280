# Everything runs in a virtual environment that `setup` makes: .venv, or another with VENV=...
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.sbp-tune-setup

.PHONY: setup quickstart notebook test test-all lint bench

# Left alone when it was set up from this checkout and pyproject.toml is not newer.
setup:
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(CURDIR)" ] || [ pyproject.toml -nt $(STAMP) ]; then \
	  set -e; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "needs Python 3.11 or newer, found $$($(PYTHON) --version); set PYTHON=..."; exit 2; }; \
	  [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	  echo "installing into $(VENV): some minutes, some GB (torch)"; \
	  $(BIN)/python -m pip install --quiet --upgrade pip; \
	  PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'; \
	  echo "$(CURDIR)" > $(STAMP); \
	fi

quickstart: setup
	$(BIN)/sbp-tune search quickstart

notebook: setup
	@[ -x $(BIN)/jupyter-lab ] || PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev,notebook]'
	$(BIN)/jupyter lab --notebook-dir=analysis/notebooks

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-all: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.backward --model resnet18 --stem cifar --batch-size 32 --keep 0.25
