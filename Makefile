# What a newcomer types. `make` alone shows this list.
PYTHON ?= python3
BIN := .venv/bin
DEMO_BIN := .venv-demo/bin
DEMO_OUTPUT ?= demo/output

.PHONY: help setup demo test lint format stress bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(BIN)/.complete ## the full developer environment in .venv

$(BIN)/.complete: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[core,spark,beam,train,dev]'
	@touch $@

$(DEMO_BIN)/.complete: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv-demo
	$(DEMO_BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[core]'
	@touch $@

demo: $(DEMO_BIN)/.complete ## the main job on data that every machine has, in a light environment of its own
	$(DEMO_BIN)/python demo/make_inputs.py demo/inputs
	$(DEMO_BIN)/headrace run demo/recipe.yaml --output $(DEMO_OUTPUT) --workers 2
	$(DEMO_BIN)/headrace verify $(DEMO_OUTPUT)

test: setup ## all tests but the long ones
	$(BIN)/pytest -n 2 --dist loadfile

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stress: setup ## long kill loops, fuzzing, volume
	$(BIN)/pytest -m stress

bench: setup ## every figure of docs/performance.md
	$(BIN)/python benchmarks/main_job.py
	$(BIN)/python benchmarks/transforms.py
	$(BIN)/python benchmarks/archive_recovery.py

clean: ## remove environments and outputs
	rm -rf .venv .venv-demo demo/inputs demo/output
