# `make` alone prints this help. Everything runs in .venv, made from requirements.lock.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := georouter boundaries api scripts tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test truth bench-http bench-api bench-route bench-route-file bench-index bench-delivery verify-index chaos phone check format lock clean

help: ## print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(STAMP) ## make .venv with everything in it

$(STAMP): requirements.lock pyproject.toml
	@python="$$(sh scripts/find_python.sh)" && "$$python" -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) (a minute or two the first time)"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## the whole job on an embedded database and example country; Ctrl-C ends it
	@$(BIN)/georouter demo

test: $(STAMP) ## every test (those that need ../shared/data say so when it is absent)
	@$(BIN)/pytest

truth: $(STAMP) ## agreement of the real polygons with independent truth (needs ../shared/data)
	@$(BIN)/python -m scripts.bench_truth

bench-route-file: $(STAMP) ## speed and memory of routing a file, against pyarrow alone
	@$(BIN)/python -m scripts.bench_route_file

bench-index: $(STAMP) ## the index against shapely and others, in one run (ten minutes)
	@$(BIN)/python -m scripts.bench_index

bench-http: $(STAMP) ## what an answer to "who is responsible" costs over HTTP
	@$(BIN)/python -m scripts.bench_http

bench-api: $(STAMP) ## taking reports in under load, against a bare INSERT; p99, memory (ten minutes)
	@$(BIN)/python -m scripts.bench_api

bench-route: $(STAMP) ## what a second layer and what routing cost over a bare lookup
	@$(BIN)/python -m scripts.bench_route

bench-delivery: $(STAMP) ## forwarding against httpx alone, the claim, an idle worker (five minutes)
	@$(BIN)/python -m scripts.bench_delivery

verify-index: $(STAMP) ## twenty million points against GEOS (ten minutes)
	@$(BIN)/python -m scripts.verify_index

chaos: $(STAMP) ## kill processes and PostgreSQL under load, lose nothing (a minute or two; LONG=1: 100,000 reports)
	@$(BIN)/python -m scripts.chaos $(if $(LONG),--reports 100000 --kills 200)

phone: $(STAMP) ## a thousand phones on a bad line, with photos: each report once, each photo whole (ten minutes)
	@$(BIN)/python -m scripts.phone

check: $(STAMP) ## format, lint, types, import contracts, unit tests, guarantees; no network
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/unit tests/guarantees

format: $(STAMP) ## write the format and the safe lint fixes
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

lock: ## remake requirements.lock (needs uv); names and hashes only, no addresses
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --all-extras pyproject.toml -o requirements.lock

clean: ## remove .venv and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
