# Two commands do everything on a fresh machine: `make search` and `make test`.
#
# PYTHON: the interpreter that .venv is made with. RUNS: where results go.

PYTHON ?= python3
RUNS ?= runs
TORCH_VERSION := 2.13.0
BIN := .venv/bin

.PHONY: search test lint benchmarks clean

# The main job on this machine's CPU: profile, table, fit, search, report.
search: .venv/installed
	mkdir -p $(RUNS)
	$(BIN)/latkit profile --device cpu --space mobile --store $(RUNS)/latency.sqlite
	$(BIN)/latkit table --device cpu --space mobile --store $(RUNS)/latency.sqlite --output $(RUNS)/table.json
	$(BIN)/latkit fit --device cpu --store $(RUNS)/latency.sqlite --output $(RUNS)/predictor.json
	$(BIN)/latkit search --device cpu --space mobile --store $(RUNS)/latency.sqlite --table $(RUNS)/table.json --output $(RUNS)/search
	$(BIN)/latkit report --search $(RUNS)/search

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# torch comes first and pinned, so that no other package asks for another build of it.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
