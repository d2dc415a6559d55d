# Two commands: `make run` trains the quick grid and draws its report, `make test` proves the project.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Real corpora for the tests: the caller's folder, else the one beside the repository, else none.
ifndef BENCH_DATA
BENCH_DATA := $(realpath ../shared/data)
endif
# One thread per test process, which is what a trial gets. Three of them fill two cores: half their time they wait.
TEST_ENV := OMP_NUM_THREADS=1 $(if $(BENCH_DATA),BENCH_DATA='$(BENCH_DATA)')

.DEFAULT_GOAL := help
.PHONY: help setup run test lint gpu-test plugins-smoke golden clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## the environment alone: .venv with the pinned set and the project

# The stamp is newer than the two files that decide what is installed, or everything below runs again.
# torch goes first and alone: with it in place no other package pulls a build of its own choosing.
# -qq leaves pip's errors and drops its remarks.
$(STAMP): requirements.lock pyproject.toml
	@echo "setting up $(VENV): a minute or two, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -qq "$$(grep '^torch==' requirements.lock)"
	@$(PIP) install -qq --requirement requirements.lock
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: setup  ## the quick grid on the built-in corpus, then its report
	@$(BIN)/python -m bench.grid

test: setup lint  ## ruff, mypy and pytest
	$(TEST_ENV) $(BIN)/python -m pytest -n 3 --dist loadgroup -m "not gpu"

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-test: setup  ## the tests that need a GPU
	$(TEST_ENV) $(BIN)/python -m pytest -m gpu

plugins-smoke: setup  ## one short training of every plugin: each must beat the unigram model
	$(TEST_ENV) $(BIN)/python -m tests.plugins_smoke

golden: setup  ## rewrite tests/golden.json, after a change of protocol
	$(TEST_ENV) $(BIN)/python -m tests.golden

clean:  ## everything that was built or cached; results/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bench cells regularizers tests -name __pycache__ -type d -prune -exec rm -rf {} +
