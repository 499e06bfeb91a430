# `make` lists what can be asked for. `make run` and `make test` set up everything that they need.

PYTHON ?= python3
EXP ?= evil_twin_noise
ARGS ?=
RUNS ?= runs
UPGRADE ?=
TEST_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished

# Tests run side by side, so each keeps to one thread; otherwise they fight for the same cores.
TEST_WORKERS ?= logical
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TEST_WORKERS) --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run grid paper sync dashboard claims report tables benchmark test test-fast lint format types constraints clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo 'Variables: EXP=vlt_zero (run), ARGS="seed=1" (run, grid, paper, tables, benchmark), RUNS=runs (claims, report, tables), PYTHON=python3.12 (what .venv is made with).'

install: $(INSTALLED)  ## Create .venv with everything, at the tested versions; instant when nothing changed

# The stamp comes last. An environment that an interruption left unfinished, or whose Python is gone, is made anew.
$(INSTALLED): pyproject.toml constraints.txt $(PY)
	@if [ -e $(UNFINISHED) ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	    echo 'Python 3.10 or newer is needed, and $(PYTHON) is not: name another, as in make install PYTHON=python3.12' >&2; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo '$(PYTHON) cannot create virtual environments: on Debian or Ubuntu, apt-get install python3-venv' >&2; exit 1; }; \
	  echo 'Creating $(VENV) and installing; minutes the first time, with several GB of downloads where torch comes with CUDA.'; \
	  rm -rf $(VENV) && mkdir $(VENV) && touch $(UNFINISHED) && $(PYTHON) -m venv $(VENV) || exit 1; \
	fi
	@touch $(UNFINISHED)
	$(PY) -m pip install --no-input --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@mv $(UNFINISHED) $(INSTALLED)
$(PY): ;

run: install  ## Train one experiment on the embedded data: EXP, by default evil_twin_noise
	@$(PY) run.py +exp=$(EXP) $(ARGS)

grid: install  ## Run every cryo-EM experiment, one after another
	@$(PY) run.py -m '+exp=glob(*,exclude=[mnist_*,infer,audit])' $(ARGS)

sync: install  ## Upload what runs in RUNS have logged to W&B offline; needs a key
	@find $(RUNS) -type d -path '*/wandb/offline-run-*' -prune -exec $(PY) -m wandb sync {} +

dashboard: install  ## Save the project's dashboard in W&B; needs a key
	@$(PY) -m experiments dashboard $(ARGS)

paper: install  ## Make every run that the paper's claims need, then the report; goes on where it stopped
	@$(PY) -m experiments paper $(ARGS)

claims: install  ## Judge the paper's claims by the runs in RUNS
	@$(PY) -m experiments claims $(RUNS)

report: install  ## Show the runs in RUNS on one page, RUNS/report.html
	@$(PY) -m experiments report $(RUNS)

tables: install  ## Write the numbers of the runs in RUNS into RUNS/tables.md; ARGS=--renew: into README.md, too
	@$(PY) -m experiments tables $(RUNS) $(ARGS)

benchmark: install  ## Measure images/s beside cryoDRGN's own training, on the same files
	@$(PY) -m experiments benchmark $(ARGS)

test: lint types  ## Lint, type-check, and run every test
	$(PYTEST) $(TEST_ARGS)

test-fast: install  ## Run the tests that take seconds
	$(PYTEST) -m 'not slow'

lint: install  ## Check style, docstrings, formatting, and which room imports which
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo

format: install  ## Rewrite the code in the project's format
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

types: install  ## Check the type hints
	$(PY) -m mypy

constraints: install  ## Renew constraints.txt; UPGRADE=--upgrade-package=NAME (or --upgrade) moves pinned versions
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-annotate $(UPGRADE) \
	  --custom-compile-command 'make constraints' --output-file constraints.txt pyproject.toml

clean:  ## Remove .venv and the tools' caches; runs and data stay
	rm -rf $(VENV) *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
