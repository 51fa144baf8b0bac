# Needs Python >= 3.11, git and make; everything else goes into VENV.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types determinism check docs clean

# Installs and runs the main job: three nodes, import, owner killed, export elsewhere, bytes compared.
demo: $(VENV)/.installed
	$(BIN)/gossipcache demo

# Installs and passes the tests.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# Runs simulated clusters in processes of different hash seeds: one seed is one run, to the byte.
DETERMINISM := owner-death parent-death delete-storm partition-heal mass-restart weather \
	malicious-member two-keepers-killed fault-crash-loop cortex-2130-same-name-new-address
determinism: $(VENV)/.installed-dev
	$(BIN)/python -m sim check-determinism --seeds 1..2 $(DETERMINISM:%=--scenario %)

check: test lint types determinism

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gossipcache needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	$(BIN)/python -m compileall -q gossipcache
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
