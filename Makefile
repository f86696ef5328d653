# Everything runs in the environment .venv, which the first target that needs it makes.
#
# To choose another interpreter or package source:
#   make demo PYTHON=python3.12
#   make demo TORCH_INDEX=URL          take torch from this package index
#   make demo PIP_EXTRA_ARGS='...'     further arguments of every `pip install`

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
PIP_EXTRA_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_EXTRA_ARGS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo dry-run test test-all lint docs ui clean

help:  ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: $(VENV)/.demo  ## run the demo search
	$(BIN)/python launch.py --search demo

dry-run: $(VENV)/.demo  ## check the demo search and show its plan, without training
	$(BIN)/python launch.py --search demo --dry-run

# Processes that each take whole files (tests/conftest.py), integration tests first. One more than two
# cores have: they spend a third of their time waiting for the processes that Ray and MLflow start.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder --durations=10

# Every check runs, whatever the others say; pytest comes last, so that its closing line does too.
test: $(VENV)/.test  ## check style and types, run the tests but the slow ones
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	$(PYTEST) -m "not slow" || failed=1; \
	exit $$failed

test-all: $(VENV)/.test  ## run all tests, also those that take minutes
	$(PYTEST)

lint: $(VENV)/.test  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.test  ## write docs/spec.md from the code
	$(BIN)/python scripts/spec_reference.py > docs/spec.md

ui: $(VENV)/.demo  ## show the recorded searches on http://127.0.0.1:5000
	$(BIN)/xlt-ray ui

clean:  ## remove the environment and caches, not the results (runs/, mlflow.db)
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find launch.py xlt_ray tests scripts -name __pycache__ -prune -exec rm -rf {} +

# The environment, in steps; each leaves a stamp, so that it is done once.

$(VENV)/.made:
	@echo "Making the environment $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# On its own and first: the other packages would otherwise draw in the default build of torch, which
# on Linux brings gigabytes of CUDA libraries. scripts/torch_index.py chooses the CPU build if there
# is no GPU. The packages that torch needs come with the others, in their pinned versions.
$(VENV)/.torch: $(VENV)/.made constraints.txt
	@echo "Installing packages, some minutes"
	@index=$$($(BIN)/python scripts/torch_index.py $(TORCH_VERSION)) || exit 1; \
	if [ -n "$$index" ]; then echo "Taking torch from $$index"; fi; \
	$(PIP_INSTALL) $${index:+--no-deps --index-url "$$index"} torch==$(TORCH_VERSION)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[demo,test]'
	@touch $@
