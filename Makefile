# Every target makes .venv and installs what it needs by itself; only Python 3.11+ and make must be there.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# every process of a server, and every one of the tests, would compile the whole tree again
unexport PYTHONDONTWRITEBYTECODE
# of these all tests are slow, and finding them is so too
QUICK := -p no:schemathesis --ignore=tests/conformance/test_openapi_fuzz.py

.PHONY: help demo test test-chaos test-cluster test-sdk test-slow bench lint format

help:
	@echo "make demo       start everything, backfill a year of real weather, show the result"
	@echo "make test       run the tests: less than ten minutes"
	@echo "make test-chaos kill every kind of process while runs, backfills and triggers go on"
	@echo "make test-cluster kill nodes of a cluster of several while tasks run"
	@echo "make test-sdk   run public worker SDKs of three generations from PyPI against a server"
	@echo "make test-slow  run the rest: a browser, thousands of events, the contracts while processes are killed"
	@echo "make bench      measure; writes tests/benchmarks/latest.json"
	@echo "make lint       format check, lint, types, import contracts"
	@echo "make format     write the format"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.x" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest $(QUICK) -m 'not slow and not chaos and not ray' -n auto --dist worksteal
	$(BIN)/python -m pytest $(QUICK) -m 'ray and not slow and not chaos' tests/conformance tests/integration

test-chaos: $(STAMP)
	$(BIN)/python -m pytest -m 'chaos and not slow'

test-cluster: $(STAMP)
	$(BIN)/python -m pytest tests/cluster

test-sdk: $(STAMP)
	$(BIN)/python -m pytest tests/conformance/test_jobs_sdks.py

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.bench

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
