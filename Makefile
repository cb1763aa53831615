# What a newcomer types. `make` alone shows this list.
PYTHON ?= python3
BIN := .venv/bin
DEMO_BIN := .venv-demo/bin
AIRFLOW_BIN := .venv-airflow/bin

.PHONY: help setup demo demo-train airflow test conformance lint format stress bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# pip 23 stops where two packages write one extra in two ways (lxml[html_clean], lxml[html-clean])
setup: $(BIN)/.complete ## the full developer environment in .venv

$(BIN)/.complete: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip>=24'
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[core,spark,beam,extractor,train,dev]'
	@touch $@

$(DEMO_BIN)/.complete: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv-demo
	$(DEMO_BIN)/pip install --quiet --disable-pip-version-check 'pip>=24'
	$(DEMO_BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[core]'
	@touch $@

$(DEMO_BIN)/.train: $(DEMO_BIN)/.complete
	$(DEMO_BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(DEMO_BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[core,train]'
	@touch $@

$(AIRFLOW_BIN)/.complete: airflow.lock
	$(PYTHON) -m venv .venv-airflow
	$(AIRFLOW_BIN)/pip install --quiet --disable-pip-version-check -r airflow.lock
	@touch $@

demo: $(DEMO_BIN)/.complete ## from raw bytes to packed sequences, on data that every machine has, in a light environment
	$(DEMO_BIN)/python demo/make_inputs.py demo/inputs
	$(DEMO_BIN)/headrace run demo/recipe.yaml --output demo/output --workers 2
	$(DEMO_BIN)/headrace verify demo/output
	$(DEMO_BIN)/headrace mix demo/mixture.yaml --output demo/plan/plan.json
	$(DEMO_BIN)/headrace trace --plan demo/plan/plan.json --step 0 --row 0 --text
	$(DEMO_BIN)/headrace report demo/plan/plan.json --output demo/report

demo-train: demo $(DEMO_BIN)/.train ## adds PyTorch and 30 training steps on the CPU, with their curve in the report
	$(DEMO_BIN)/headrace mix demo/mixture-cpu.yaml --output demo/plan/cpu.json
	$(DEMO_BIN)/headrace train demo/train.yaml --plan demo/plan/cpu.json --output demo/training
	$(DEMO_BIN)/headrace report demo/training --output demo/report

# .venv comes first on PATH, for its spark-submit; `airflow standalone` starts `airflow` from PATH, too
airflow: setup $(AIRFLOW_BIN)/.complete ## Airflow on SQLite with the DAG headrace_ingest, at http://127.0.0.1:8080
	mkdir -p -m 700 "$(CURDIR)/.airflow"
	PATH="$(CURDIR)/$(BIN):$(CURDIR)/$(AIRFLOW_BIN):$$PATH" \
	HEADRACE_HOME="$(CURDIR)" HEADRACE_BIN="$(CURDIR)/$(BIN)/headrace" \
	AIRFLOW_HOME="$(CURDIR)/.airflow" AIRFLOW__CORE__DAGS_FOLDER="$(CURDIR)/dags" AIRFLOW__API__HOST=127.0.0.1 \
	AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False airflow standalone

test: setup $(AIRFLOW_BIN)/.complete ## all tests but the long ones
	$(BIN)/pytest -n 2 --dist loadfile

conformance: setup ## the laws, on every engine and storage
	$(BIN)/pytest -n 2 --dist loadfile tests/conformance

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stress: setup $(AIRFLOW_BIN)/.complete ## long kill loops, fuzzing, volume
	$(BIN)/pytest -m stress

bench: setup ## every figure of docs/performance.md
	$(BIN)/python benchmarks/main_job.py
	$(BIN)/python benchmarks/transforms.py
	$(BIN)/python benchmarks/archive_recovery.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/language_id.py
	$(BIN)/python benchmarks/warc_to_documents.py
	$(BIN)/python benchmarks/filters.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/quality_labels.py
	$(BIN)/python benchmarks/pii.py
	$(BIN)/python benchmarks/code_rules.py
	$(BIN)/python benchmarks/url_rules.py
	$(BIN)/python benchmarks/dedup.py
	$(BIN)/python benchmarks/dedup_quality.py
	$(BIN)/python benchmarks/contamination.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/learn.py
	$(BIN)/python benchmarks/ablation.py

clean: ## remove environments and outputs
	rm -rf .venv .venv-demo .venv-airflow .airflow demo/inputs demo/output demo/plan demo/report demo/training
