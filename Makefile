# Everything a fresh machine needs, on top of git, make and Python 3.11+:
#   make demo      three simulated hospitals, from data to report
#   make test      the tests (at most 10 minutes)
#   make test-all  and the slow ones (at most 60)
#   make test-docker  the trial in containers, which is part of test-all (needs a Docker engine)
#   make lint      ruff, mypy, the layer contract
#   make bench     the figures in bench/results
#   make locks     the lock files again, from pyproject.toml and constraints.txt
#   make sbom      what is in them, as CycloneDX, into build/sbom
#   make audit     asks PyPI which of them have known vulnerabilities
# A machine without a GPU need not fetch CUDA: name a source of CPU wheels, for example
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-docker lint bench locks sbom audit clean

help:
	@sed -n '2,13p' Makefile | sed 's/^# \{0,1\}//'

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

# Each lock: the runtime of this project on Linux with glibc, Python 3.11, wheels only, and what builds the project itself.
# CPU_WHEELS says where torch's CPU build comes from. A node leaves out what deploy/not-in-a-node.txt names.
CPU_WHEELS ?= --torch-backend cpu
LOCK = $(VENV)/bin/uv pip compile -q pyproject.toml - --extra dicom-codecs --extra spreadsheets -c constraints.txt \
	--python-version 3.11 --python-platform x86_64-manylinux_2_34 --only-binary :all: --generate-hashes \
	--no-annotate --custom-compile-command 'make locks'
BUILT_BY = $(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])'
locks: install
	$(BUILT_BY) | $(LOCK) -o requirements.lock
	$(BUILT_BY) | $(LOCK) --excludes deploy/not-in-a-node.txt $(CPU_WHEELS) -o requirements-node-cpu.lock
	$(BUILT_BY) | $(LOCK) --excludes deploy/not-in-a-node.txt -o requirements-node-cuda.lock

LOCKS = $(wildcard requirements*.lock)
sbom: install
	mkdir -p build/sbom
	for lock in $(LOCKS); do $(VENV)/bin/cyclonedx-py requirements --of JSON --output-reproducible -o build/sbom/$${lock%.lock}.json.tmp $$lock \
		&& mv build/sbom/$${lock%.lock}.json.tmp build/sbom/$${lock%.lock}.json || exit 1; done

# The nodes' locks hold the same versions (tests/deploy/test_locks.py). --strict: a package of which nothing is known is no pass.
audit: install
	timeout 45 $(VENV)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --timeout 10 -r requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info
