# Everything runs in $(VENV), which the first target that needs it creates from the pinned versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
RAG := $(VENV)/bin/rag
STAMP := $(VENV)/.installed
QUESTION ?= How quickly must I report a security incident?

export DAGSTER_DISABLE_TELEMETRY := yes
export RAG_CONFIG ?= $(CURDIR)/rag.yaml

.PHONY: help setup demo demo-production dev test test-all lint typecheck bench docs clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time this takes some minutes."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## create the environment

demo: $(STAMP) ## index the example corpus, ask a question, print the cited answer
	@$(RAG) run
	@$(RAG) status
	@echo
	@echo '$$ rag ask "$(QUESTION)"'
	@$(RAG) ask "$(QUESTION)"
	@echo
	@echo "Ask more: $(RAG) ask \"...\"   Everything running: make dev, then http://127.0.0.1:3000 (assets) and http://127.0.0.1:8080 (ask)"

demo-production: $(STAMP) ## the same on S3, Spark Connect, Postgres, Milvus, Redis and pods, compared with the laptop's
	@$(VENV)/bin/python -m tests.production

dev: $(STAMP) ## start the Dagster UI and everything local that it needs
	@$(RAG) dev

test: $(STAMP) ## unit tests, but for the slow ones
	$(VENV)/bin/python -m pytest -q -n auto --dist loadscope -m "not slow" tests/unit

test-all: test ## all tests: also slow unit tests, real Spark, Milvus Lite, HTTP servers, crashes
	$(VENV)/bin/python -m pytest -q -n auto --dist loadscope -m slow tests/unit
	$(VENV)/bin/python -m pytest -q -n auto --dist loadfile tests/integration tests/e2e

lint: $(STAMP) ## ruff
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

typecheck: $(STAMP) ## mypy, strict
	$(VENV)/bin/mypy

bench: $(STAMP) ## chunking and embedding against their peers, on the example corpus
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(VENV)/bin/python -m benchmarks.chunking
	$(VENV)/bin/python -m benchmarks.embedding --chunks 400

docs: $(STAMP) ## regenerate the configuration reference, the tables of metrics and the dashboards
	$(VENV)/bin/python -m rag_core.config_reference
	$(VENV)/bin/python -m deploy.monitoring.build

clean: ## remove the environment and the example's store
	rm -rf $(VENV) data
