# One word per chore. Every target first makes .venv from the hash-locked requirements when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Whole files of tests side by side, each in the order that tests/conftest.py gives them.
SIDE_BY_SIDE := --numprocesses=auto --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help up demo test test-servers check lint types imports migrations compose bench chaos lock clean

help: ## Show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Harbor needs Python 3.11 or newer, and this is {v.major}.{v.minor}: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

up: $(STAMP) ## Run everything on this machine: servers, workers, Beat, Flower
	$(BIN)/harbor up

demo: $(STAMP) ## Replay a shop's orders through the whole system, with faults, and check the books
	$(BIN)/python -m demo

test: $(STAMP) ## Run the tests; they start their own PostgreSQL and Valkey
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-servers: $(STAMP) ## Run the tests on Debian's PostgreSQL (15 or newer) and Redis, installed if need be
	@.ci/install postgresql redis-server redis-tools chromium fonts-dejavu-core pgbouncer
	@HARBOR_STACK_SERVERS=debian $(BIN)/python -m stack true
	HARBOR_STACK_SERVERS=debian $(BIN)/python -m pytest $(SIDE_BY_SIDE)

# The tests last: what was skipped, and why, is the end of the output.
check: lint types imports migrations compose test ## Everything that CI runs

lint: $(STAMP) ## Rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP) ## Imports point one way
	$(BIN)/lint-imports

migrations: $(STAMP) ## Models equal migrations
	$(BIN)/python -m stack $(BIN)/harbor db check --upgrade

compose: $(STAMP) ## docker-compose.yml fits the Compose schema
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: $(STAMP) ## Measure beside the flow of the tutorials, and jobs beside other systems (10 minutes)
	$(BIN)/python -m bench reservations
	$(BIN)/python -m bench jobs

chaos: $(STAMP) ## Every test that kills, with more rounds
	HARBOR_TEST_ROUNDS=5 $(BIN)/python -m pytest tests/concurrency tests/acceptance

lock: ## Resolve requirements/*.in into requirements/*.txt with hashes (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/base.in -o requirements/base.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/base.txt requirements/dev.in -o requirements/dev.txt

clean: ## Remove what make and Harbor made here
	rm -rf .venv .harbor .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
