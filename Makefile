# Every target sets up what it needs: a virtual environment, pinned installs, data.
# Needs make, git and Python 3.11 to 3.13. `make` alone lists the targets.
#   PYTHON=/path/to/python3   interpreter the virtual environment is made from
#   VENV=.venv                where it lives
#   ARGS="..."                appended to the command of most targets
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow test-adversarial test-lowest lint type data reproduce-paper tables bench bench-gpu lock clean

VENV ?= .venv
PY := "$(VENV)/bin/python"
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
BUDGET ?= mini
DATASETS ?= smnist_mini
ARGS ?=
DEMO := scripts/reproduce.py run --fusions concat --strategies paper,vanilla_aux,ume --no-ablations
DEMO_MORE := $(PY) $(DEMO) --datasets mfeat,smnist_mini --until-decided --hours 1 tracker=none
LOWEST := $(addprefix tests/test_,scheduler.py scheduler_faults.py miles.py golden.py metrics.py contract.py)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(PY) -m pip -qq install -c constraints.txt

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.setup ## Make .venv and install the pinned packages (6-7 GB; once)

# pip is what venv puts in last: a half-made environment is made again.
$(VENV)/bin/pip:
	@for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	    || continue; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: $$python cannot make virtual environments: install its venv package" \
	         "(Debian and Ubuntu: python3-venv), then run make again" >&2; exit 2; }; \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  rm -rf "$(VENV)"; "$$python" -m venv "$(VENV)"; exit; \
	done; \
	echo "error: no Python 3.11 to 3.13 among: $(CANDIDATES). Install one or name it:" \
	     "make PYTHON=/path/to/python3.11" >&2; exit 2

$(VENV)/.setup: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing the pinned packages (a few minutes the first time)"
	@$(PIP) -e '.[dev]'
	@touch "$@"

# The slow suite also drives a local Ray cluster.
$(VENV)/.setup-slow: $(VENV)/.setup
	@$(PIP) -e '.[dev,ray]'
	@touch "$@"

data: setup ## Prepare the embedded data sets: smnist_mini (digits, seen and heard), mfeat (three views)
	@$(PY) scripts/prepare_data.py dataset=smnist_mini
	@$(PY) scripts/prepare_data.py dataset=mfeat

demo: data ## Compare the paper's strategies on mfeat and smnist_mini: verdicts in the terminal, a page
	$(PY) $(DEMO) --datasets mfeat --no-estimate budget.seeds=10 tracker=none $(ARGS)
	$(PY) $(DEMO) --datasets smnist_mini --no-estimate budget.trials=1 budget.seeds=6 tracker=none $(ARGS)
	@echo "page: results/local/report.html"
	@echo 'next, more seeds for the undecided, an hour at a time: $(DEMO_MORE)'

test: data ## Run the tests, the slow ones excepted
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto $(ARGS)

test-slow: data $(VENV)/.setup-slow ## Run the slow tests only
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow --ignore=tests/adversarial $(ARGS)

test-adversarial: data ## Attack command lines, records, data and processes; print the figures
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow tests/adversarial $(ARGS)

test-lowest: setup ## Run some tests on the lowest versions that pyproject.toml allows (3 GB more)
	@$(PY) -m pip -qq install uv
	$(PY) -m uv venv --no-config --clear --python 3.11 "$(VENV)-lowest"
	$(PY) -m uv pip install --no-config --python "$(VENV)-lowest" --resolution lowest-direct \
	  -e '.[suite]' 'pytest>=8.3' 'hypothesis>=6.100'
	OMP_NUM_THREADS=1 "$(VENV)-lowest/bin/python" -m pytest $(LOWEST)

lint: setup ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: setup ## Check types
	$(PY) -m mypy

reproduce-paper: data ## Run the paper's protocol: BUDGET=smoke|mini|paper DATASETS=a,b
	$(PY) scripts/reproduce.py run --budget $(BUDGET) --datasets $(DATASETS) $(ARGS)

tables: setup ## Rebuild tables, figures and report in results/local/ from your runs, or from RECORDS=<packed>
	$(PY) scripts/reproduce.py tables $(addprefix --records ,$(RECORDS)) $(ARGS)

bench: data ## Measure speed against a bare loop and the usual recipe
	$(PY) scripts/bench $(ARGS)

bench-gpu: setup ## Measure speed on one GPU, in 8 minutes: results/bench/gpu.md
	$(PY) scripts/bench/gpu.py $(ARGS)

lock: setup ## Resolve constraints.txt anew (for maintainers; then run the tests)
	@$(PY) -m pip -qq install uv
	$(PY) scripts/lock.py

clean: ## Remove .venv and caches; keeps data/ and results/
	rm -rf "$(VENV)" "$(VENV)-lowest" build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
