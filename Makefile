# Everything runs in a virtual environment that the first target to need it makes: python3 (3.10 or newer) and make
# are enough. `make help` says what there is.
#   PYTHON=python3.12   the interpreter the environment is made with
#   VENV=somewhere      where the environment lies
#   PIP_FLAGS=...       added to the install, for instance for a smaller, CPU-only PyTorch on Linux:
#                       --extra-index-url https://download.pytorch.org/whl/cpu
#   ARGS=...            added to the command of demo, test and test-slow, for instance ARGS="-k gates"

PYTHON    ?= python3
VENV      ?= .venv
PIP_FLAGS ?=
ARGS      ?=
JOBS      ?= 2

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo gallery test test-slow lint bench clean
.DELETE_ON_ERROR:

help:  ## this list
	@echo "usage: make TARGET [PYTHON=python3.12] [VENV=.venv] [PIP_FLAGS=...] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## make the environment and install the project in it (once; the other targets do it by themselves)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is missing or older than 3.10; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "==> installing into $(VENV): the first time this downloads PyTorch (up to 3 GB, 6 GB on disk), 2 to 15 minutes"
	@if command -v uv >/dev/null; then \
		set -e; \
		test -x $(PY) || uv venv --quiet --python "$(PYTHON)" $(VENV); \
		uv pip install --python $(PY) $(PIP_FLAGS) -e ".[dev]"; \
	else \
		set -e; \
		$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
			{ echo "error: $(PYTHON) -m venv failed; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		$(PY) -m pip install --disable-pip-version-check $(PIP_FLAGS) -e ".[dev]"; \
	fi
	@touch $@
	@echo "==> installed; $(VENV)/bin/distill is the command"

demo: $(STAMP)  ## train a teacher, a plain and a distilled student on generated scenes, and compare them
	@echo "==> demo: no download and no GPU needed; several minutes on two cores"
	$(PY) -m distill demo $(ARGS)

gallery: $(STAMP)  ## fill attention_visualizations/ with the pictures of networks trained on generated scenes
	@echo "==> gallery: trains as the demo does, then draws; several minutes on two cores"
	$(PY) tools/make_gallery.py $(ARGS)

test: $(STAMP)  ## the fast tests
	@echo "==> tests: a few minutes on two cores"
	$(PY) -m pytest -n $(JOBS) -q $(ARGS)

test-slow: $(STAMP)  ## the tests that train for minutes
	@echo "==> slow tests: real training runs, expect five to ten minutes on two cores"
	$(PY) -m pytest -n $(JOBS) -q -m slow $(ARGS)

lint: $(STAMP)  ## style, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(STAMP)  ## every script in benchmarks/, one after the other
	@set -e; for script in $(sort $(wildcard benchmarks/[a-z]*.py)); do echo "==> $$script"; $(PY) $$script; done

clean:  ## remove caches and builds (the environment and runs/ stay)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
