# Needs nothing but Python 3.11, for which constraints.txt is made. Everything else goes into .venv.
# torch_npu has a folder apart, for tests/stand_in: without CANN it would fail `import torch` for all. Some do without.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   ?= configs/runs/quickstart.yaml
export OMP_NUM_THREADS ?= 1
# Compiled once, and not by each of the hundreds of processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

# Parts of the tests. Contracts of what carries bytes, and all others; what is below `hetero`, what computes in it, and
# all else of it with the house: each by itself, and fast.
LINES := $(patsubst %,tests/contract/test_%.py,bytes exactly_once links long_link stalls strangers)
CONTRACTS := tests/contract $(addprefix --ignore=,$(LINES))
FLOORS := tests/unit/backends tests/unit/balancer tests/unit/bridge
MODELS := $(addprefix tests/unit/hetero/,align checkpoint engine layers models transfer)
HETERO := tests/architecture tests/unit/hetero $(addprefix --ignore=,$(MODELS))
VIEWS := tests/unit/hetero/monitoring
# Ranks that train: on one standing fleet, on fleets of a test's own, and on made-up chips. Whole runs: on a cluster,
# that end badly, as the tutorial has them, short ones, pages and commands that end at once; and all others.
FLEETS := $(patsubst %,tests/distributed/test_%.py,cut_connections faults measured_links)
RANKS := tests/distributed $(addprefix --ignore=,$(FLEETS))
CHIPS := tests/stand_in
CLUSTER := tests/e2e/test_cluster.py
ENDS := tests/e2e/test_ends.py
TUTORIAL := tests/e2e/test_getting_started.py
SHORT := $(patsubst %,tests/e2e/test_%.py,surroundings stopped strangers unlike_precisions equal_training_ray)
PAGES := tests/e2e/bad_input tests/e2e/test_report.py tests/e2e/test_dashboard.py
OTHERS := tests/e2e $(addprefix --ignore=,$(CLUSTER) $(ENDS) $(TUTORIAL) $(SHORT) $(PAGES))
# What is long comes first, as one process beside ranks that spin the longest computation, too; at the end what only
# computes, side by side.
PARTS := RANKS CONTRACTS LINES MODELS OTHERS CLUSTER ENDS HETERO TUTORIAL CHIPS SHORT FLEETS PAGES FLOORS

.PHONY: install demo test test-all $(PARTS) check check-types check-floors check-hetero bench clean

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	-test -d $(VENV)/ascend || $(BIN)/python -m pip install --quiet -c constraints.txt --no-deps --target $(VENV)/ascend torch-npu
	touch $@

demo: install
	$(BIN)/hetero train $(DEMO) $(ARGS)

# Three parts of the fast checks, side by side on two cores, two of them of as much work; properties with few examples.
CHECK := $(BIN)/python -m pytest -m "not slow and not exhaustive" --hypothesis-profile=fewest
check: install
	$(MAKE) --no-print-directory -j3 -Otarget check-hetero check-floors check-types

check-types:
	$(BIN)/ruff check .
	$(BIN)/mypy

check-floors:
	$(CHECK) tests/contract $(FLOORS) $(MODELS) $(VIEWS)

check-hetero:
	$(CHECK) $(HETERO) --ignore=$(VIEWS)

# Several parts at a time on two cores, for whole runs wait a lot; as one ends, however it does, the next begins.
AT_ONCE ?= 6
test: install
	$(MAKE) --no-print-directory -j$(AT_ONCE) -k -Oline $(PARTS)

$(PARTS):
	$(BIN)/python -m pytest -m "not exhaustive" $($@)

# Also what takes minutes by sheer number, and properties with many examples; -s shows what is measured.
test-all: test
	$(BIN)/python -m pytest -s -m "exhaustive or hypothesis" --hypothesis-profile=many tests

bench: install
	$(BIN)/python -m benchmarks.overhead --json
	$(BIN)/python -m benchmarks.mixed --json
	$(BIN)/python -m benchmarks.mixed --job configs/runs/mixed-slow-link.yaml --json
	$(BIN)/python -m benchmarks.mixed --job configs/runs/mixed-real.yaml --hold slow=0.4 --json
	$(BIN)/python -m benchmarks.monitoring --json
	$(BIN)/python -m benchmarks.bridge --json
	$(BIN)/python -m benchmarks.exposed --json
	$(BIN)/python -m benchmarks.tp_overlap --json
	$(BIN)/python -m benchmarks.schedules --json
	$(BIN)/python -m benchmarks.offload --json
	$(BIN)/python -m benchmarks.memory --json
	$(BIN)/python -m benchmarks.startup --json
	$(BIN)/python -m benchmarks.migrate --json
	$(BIN)/python -m benchmarks.rebalance --json
	$(BIN)/python -m benchmarks.checkpoint --json
	$(BIN)/python -m benchmarks.strangers --json
	$(BIN)/python -m benchmarks.mfu --json
	$(BIN)/python -m benchmarks.data --json
	$(BIN)/python -m benchmarks.models --json
	$(BIN)/python -m benchmarks.planner --json

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
