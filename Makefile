# Needs nothing but Python 3.11, for which constraints.txt is made. Everything else goes into .venv.
# torch_npu has a folder apart, for tests/stand_in: without CANN it would fail `import torch` for all. Some do without.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   ?= configs/runs/quickstart.yaml
export OMP_NUM_THREADS ?= 1

# Parts of the tests: what is below `hetero` and its contracts, and `hetero` with the house.
FLOORS := tests/contract tests/unit/backends tests/unit/balancer tests/unit/bridge
HETERO := tests/architecture tests/unit/hetero
VIEWS := tests/unit/hetero/monitoring
# Ranks that train, on emulated and made-up chips.
RANKS := tests/distributed tests/stand_in
# Whole runs: those that end badly, commands that end at once and pages, the tutorial, and all others.
ENDS := tests/e2e/test_ends.py
SCREENS := tests/e2e/bad_input tests/e2e/test_report.py tests/e2e/test_watch_refused.py
TUTORIAL := tests/e2e/test_getting_started.py

.PHONY: install demo test test-all test-floors test-hetero test-ranks test-runs \
        check check-types check-floors check-hetero bench clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	-test -d $(VENV)/ascend || $(BIN)/python -m pip install --quiet -c constraints.txt --no-deps --target $(VENV)/ascend torch-npu
	touch $@

demo: install
	$(BIN)/hetero train $(DEMO) $(ARGS)

# Three parts of the fast checks, side by side on two cores, two of them of as much work.
check: install
	$(MAKE) --no-print-directory -j3 -Otarget check-hetero check-floors check-types

check-types:
	$(BIN)/ruff check .
	$(BIN)/mypy

check-floors:
	$(BIN)/python -m pytest -m "not slow" $(FLOORS) $(VIEWS)

check-hetero:
	$(BIN)/python -m pytest -m "not slow" $(HETERO) --ignore=$(VIEWS)

# Four parts of as much work, side by side on two cores, for whole runs wait a lot.
test: install
	$(MAKE) --no-print-directory -j4 -Oline test-floors test-hetero test-ranks test-runs

test-floors:
	$(BIN)/python -m pytest -m "not exhaustive" $(FLOORS) $(SCREENS)

test-hetero:
	$(BIN)/python -m pytest -m "not exhaustive" $(HETERO) $(ENDS)

test-ranks:
	$(BIN)/python -m pytest -m "not exhaustive" $(RANKS) $(TUTORIAL)

test-runs:
	$(BIN)/python -m pytest -m "not exhaustive" tests/e2e $(addprefix --ignore=,$(SCREENS) $(TUTORIAL) $(ENDS))

# Also what takes minutes by sheer number; -s shows what it measures.
test-all: test
	$(BIN)/python -m pytest -s -m exhaustive tests

bench: install
	$(BIN)/python -m benchmarks.overhead --json
	$(BIN)/python -m benchmarks.mixed --json
	$(BIN)/python -m benchmarks.monitoring --json
	$(BIN)/python -m benchmarks.bridge --json
	$(BIN)/python -m benchmarks.exposed --json
	$(BIN)/python -m benchmarks.offload --json
	$(BIN)/python -m benchmarks.memory --json
	$(BIN)/python -m benchmarks.startup --json
	$(BIN)/python -m benchmarks.migrate --json
	$(BIN)/python -m benchmarks.strangers --json

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
