# `make` alone lists the targets. Everything is installed into .venv and nothing outside it, except by
# `make test` run as root on Debian, which installs the servers it lacks.

VENV := .venv
PY := $(VENV)/bin/python

# The first Python that is new enough; `make PYTHON=/path/to/python setup` overrides it.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)

# Stamps say what is installed. They carry a checksum of this directory's path, so that a copied or moved
# checkout (whose editable install still points at the old place) installs itself anew.
HERE := $(shell pwd | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/.runtime-$(HERE)
DEV := $(VENV)/.dev-$(HERE)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup test test-fast test-whole soak test-py313 lint format docs demo demo-admin bench bench-peers dist clean

help: ## List the targets (the default)
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(DEV) ## Make .venv with everything needed to work on the project

test: $(DEV) ## Run all tests on SQLite, then the database tests on PostgreSQL (ARGS= goes to pytest)
	@$(PY) -m tests $(ARGS)

test-fast: $(DEV) ## Run the unit and architecture tests: SQLite, no processes, seconds
	@TASKQ_TEST_DB=sqlite $(PY) -m pytest tests/unit tests/architecture $(ARGS)

test-whole: $(DEV) ## The same, with the suites of workers that take as long as all the rest
	@TASKQ_TEST_WHOLE=1 $(PY) -m tests $(ARGS)

soak: $(DEV) ## Run every fault case in full, for hours; one table (ARGS="--minutes N --only F08,F57" and others)
	@$(PY) -m tests.soak $(ARGS)

test-py313: ## As root on Debian: run the tests on Debian 13's Python 3.13, on Django 6.0 and 6.1 (ARGS= as above)
	@$(PYTHON) -m tests.debian13 $(ARGS)

lint: $(DEV) ## Check style, types and missing migrations
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m django makemigrations --check --dry-run --settings=tests.settings

format: $(DEV) ## Mend what the linter can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(DEV) ## Build the documentation into docs/_build/html
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html

demo: $(RUNTIME) ## Print the lists of 10,000 voters through background tasks
	@cd example_project && ../$(PY) manage.py demo $(ARGS)

demo-admin: $(RUNTIME) ## Leave a server and a worker running, with something to see in the admin
	@cd example_project && ../$(PY) manage.py demo_admin $(ARGS)

bench: $(RUNTIME) ## Measure this machine (ARGS= goes to `taskq bench`)
	@cd example_project && ../$(PY) manage.py taskq bench $(ARGS)

bench-peers: $(DEV) ## Measure other task queues beside ours; an hour (ARGS= as in `-m tests.peers --help`)
	@$(PY) -m tests.peers $(ARGS)

dist: $(DEV) ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(PY) -m build

clean: ## Remove everything these targets made, .venv included
	rm -rf $(VENV) .peers .tox build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some Pythons (Debian's without python3-venv) cannot put pip into a new environment; then another pip does it.
$(RUNTIME): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found: install it, or name it with PYTHON=..." >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 \
		|| { rm -rf $(VENV) && "$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1; } \
		|| { "$(PYTHON)" -m venv --clear --without-pip $(VENV) \
			&& "$(PYTHON)" -m pip --python $(PY) install --quiet pip; } \
		|| { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment with pip in it." \
			"On Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[env]" --group demo
	@touch $@

$(DEV): $(RUNTIME)
	@echo "Installing the development tools into $(VENV) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[env,otel,postgres,redis]" --group dev
	@touch $@
