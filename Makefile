# make demo          installs hyperwatch and shows it at work, no node needed (make demo SECONDS=10 ends by itself)
# make test          installs the tests' tools and runs the tests
# make test-slow     the long ones too
# make test-page     the page, in a browser: pictures are kept in build/page
# make lint          ruff, flake8-async, mypy, import-linter
# make bench         how fast it is, beside baselines (make bench BENCH="--quick --only live")
# make docs          makes the references of commands, configuration and metrics from the program
# make site          builds the documentation as a site, warnings are errors; it is then in site/
# make constraints   pins every dependency anew

PYTHON ?= python3.11
SECONDS ?=
BENCH ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow test-page bench lint docs site constraints clean

demo: .venv/run-stamp
	$(BIN)/hyperwatch demo $(if $(SECONDS),--seconds $(SECONDS))

test: .venv/dev-stamp
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/dev-stamp
	$(BIN)/python -m pytest

bench: .venv/dev-stamp
	$(BIN)/python -m benchmarks $(BENCH)

test-page: .venv/dev-stamp
	mkdir -p build/page
	HYPERWATCH_ARTIFACTS=build/page $(BIN)/python -m pytest tests/monitor/test_page.py

lint: .venv/dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8-async --startable-in-context-manager=run,serve,_follow,stop_on_signals,broadcast,listen \
		$$(find hyperwatch tests benchmarks -name "*.py")
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Everything is pinned by hash; hyperwatch itself is then laid over it without asking a registry.
.venv/run-stamp: constraints.txt pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r constraints.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev-stamp: constraints-dev.txt .venv/run-stamp
	$(PIP) --require-hashes -r constraints-dev.txt
	touch $@

.venv/docs-stamp: constraints-docs.txt .venv/run-stamp
	$(PIP) --require-hashes -r constraints-docs.txt
	touch $@

COMPILE = uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

docs: .venv/dev-stamp
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_configuration.py
	$(BIN)/python docs/make_metrics.py

# Not --quiet: what it hides, --strict does not count.
site: .venv/docs-stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

constraints:
	$(COMPILE) --group build --output-file constraints.txt
	$(COMPILE) --group dev --output-file constraints-dev.txt
	$(COMPILE) --group docs --constraints constraints-dev.txt --output-file constraints-docs.txt

clean:
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
