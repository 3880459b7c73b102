# The front door. `make help` lists what there is; CI runs the same targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)/bin/uv)
DATA ?=
PARTS ?=
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo serve check format test scenarios e2e chaos bench shapes docs clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(VENV)/.ready ## make .venv with Clary and everything that its tests need

# uv does the work; where it is not installed, pip brings the version that pyproject.toml pins.
$(VENV)/.ready: pyproject.toml uv.lock
	@echo "Setting up $(VENV) (a minute on a fresh machine) …"
	@command -v uv >/dev/null || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q --disable-pip-version-check "$$(sed -n 's/.*"\(uv==[^"]*\)".*/\1/p' pyproject.toml)"; }
	@$(UV) sync --frozen --python $(PYTHON)
	@touch $@

demo: setup ## train, deploy and call a real model with boto3 and the SageMaker SDK (DATA=file.csv for your own table)
	@$(BIN)/clary demo $(if $(DATA),--data "$(DATA)")

serve: setup ## the whole platform in the foreground, on a temporary data directory
	@$(BIN)/clary up --ephemeral

check: setup ## format, lint, types, import contracts, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m clary.wire.generate --check
	@$(BIN)/python docs/generate.py --check

format: setup ## rewrite the code as `check` wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

test: setup ## everything that must hold before a change lands (under 15 minutes on two cores)
	@$(MAKE) --no-print-directory check
	@echo "Environments of the frameworks (some minutes on a fresh machine) …"
	@$(BIN)/python tests/framework_environments.py
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/unit tests/contract tests/wire tests/scenarios

scenarios: setup ## users' stories against a whole running platform
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/scenarios

e2e: setup ## on real machinery: containers, Ray, GPUs (what is not there is reported and left out)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/e2e

chaos: setup ## kill, fuzz and forge until something breaks; tables go to docs/reference/{chaos,reliability}.md
	@$(BIN)/python -m benchmarks.chaos

bench: setup ## measure against floors and peers in one run; tables go to docs/reference/performance.md
	@$(BIN)/python -m benchmarks $(PARTS)

shapes: setup ## generate wire/shapes from the service models
	@$(BIN)/python -m clary.wire.generate

docs: setup ## generate the reference pages
	@$(BIN)/python docs/generate.py

clean: ## remove what the targets above made (not ~/.clary, not the environments' cache)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-output
