# Everything a fresh machine needs, on top of git, make and Python 3.11+:
#   make demo      three simulated hospitals, from data to report
#   make test      the tests (at most 10 minutes)
#   make test-all  and the slow ones (at most 60)
#   make test-docker  the trial in containers, which is part of test-all (needs a Docker engine)
#   make lint      ruff, mypy, the layer contract
#   make bench     the figures in bench/results
# A machine without a GPU need not fetch CUDA: name a source of CPU wheels, for example
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-docker lint bench clean

help:
	@sed -n '2,10p' Makefile | sed 's/^# \{0,1\}//'

install: $(INSTALLED)

# Made again when the dependencies change; otherwise what is there is reused.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "polycentre needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $(INSTALLED)

demo: install
	$(VENV)/bin/polycentre run demo

test: install
	$(VENV)/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile

# The slow ones one by one: they kill nodes, and measure how long it takes to notice.
test-all: test
	$(VENV)/bin/python -m pytest -m slow

test-docker: install
	$(VENV)/bin/python -m pytest -m docker

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: install
	for script in bench/*.py; do echo "== $$script"; $(VENV)/bin/python -m bench.$$(basename $$script .py) || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info
