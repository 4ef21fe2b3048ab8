# Everything runs in .venv, which `setup` makes from a bare python3 (3.10 to 3.12) and brings up to date whenever the
# requirements change. Variables: make train SEED=1 TIMESTEPS=5000 LOGS=logs PRESET=drqv2 EXTRA="--env-kwargs n_npcs:10".

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train evaluate test test-all test-quick test-long test-slow lint types format docs benchmark clean

PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
TIMESTEPS ?=
LOGS ?= logs
MODEL ?=
PRESET ?=
EPISODES ?= 20
EXTRA ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTEST := $(PY) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
CODE := sb3_carla policies callbacks hyperparams scripts benchmarks tests

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(STAMP)  ## Make .venv with everything in it

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else \
	    "sb3_carla needs Python 3.10, 3.11 or 3.12 (carla 0.9.16 has wheels for these), and $(PYTHON) is %d.%d.\n" \
	    "Name another: make PYTHON=python3.11 setup" % v)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "No virtual environment: on Debian and Ubuntu, 'apt install python3-venv' adds what is missing." >&2; exit 1; }
	$(PY) -m pip install --disable-pip-version-check -r requirements-dev.txt
	$(PY) -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

train: $(STAMP)  ## Train TD3 on CarlaLane-v0, then evaluate it on towns it never saw
	$(PY) -m rl_zoo3.train --algo td3 --env CarlaLane-v0 --seed $(SEED) -f $(LOGS) -tb $(LOGS)/tensorboard -P \
	    $(if $(PRESET),--conf-file $(PRESET)) $(if $(TIMESTEPS),-n $(TIMESTEPS)) $(EXTRA)
	$(PY) scripts/evaluate.py --logs $(LOGS) --episodes $(EPISODES)

evaluate: $(STAMP)  ## Evaluate MODEL=path.zip, or the latest run in LOGS
	$(PY) scripts/evaluate.py $(if $(MODEL),--model $(MODEL),--logs $(LOGS)) --episodes $(EPISODES)

test: $(STAMP)  ## Lint, check types, run the tests but the long ones: minutes
	@$(MAKE) --no-print-directory --jobs 2 lint types test-quick

test-quick: $(STAMP)  ## Run the tests but the long ones
	$(PYTEST) $(EXTRA)

test-all: test test-long  ## Everything that CI runs: the same, then the long tests

test-long: $(STAMP)  ## Run the long tests alone
	$(PYTEST) -m long $(EXTRA)

test-slow: $(STAMP)  ## Run the endurance tests, which CI leaves out: an hour
	$(PY) -m pytest -m slow $(EXTRA)

lint: $(STAMP)  ## Check style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# mypy sees the packages where they install (sb3_carla.policies, ...); sed turns its paths back into the repository's.
types: $(STAMP)  ## Check types
	rm -rf build/types && mkdir -p build/types/sb3_carla
	cd build/types/sb3_carla && ln -s ../../../sb3_carla/* ../../../policies ../../../callbacks ../../../hyperparams .
	$(PY) -m mypy build/types/sb3_carla scripts benchmarks | \
	    sed -E 's#build/types/sb3_carla/(policies|callbacks|hyperparams)/#\1/#; s#build/types/##'

format: $(STAMP)  ## Put the code into its standard form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# -W: warnings are errors. Pages of autosummary are written to docs/generated, anew each time.
docs: $(STAMP)  ## Build the documentation into build/docs
	rm -rf docs/generated build/docs
	$(PY) -m sphinx -q -W --keep-going docs build/docs

benchmark: $(STAMP)  ## Measure steps per second beside CarRacing-v3 and highway-env's racetrack
	$(PY) -m pip install --disable-pip-version-check -q -e '.[benchmark]'
	$(PY) benchmarks/throughput.py $(EXTRA)

clean:  ## Remove what was built, not what was trained
	rm -rf $(VENV) build dist docs/generated *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
