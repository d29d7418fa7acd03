# make run   set up, then build the embedded default: pictures in results/*/figures
# make test  set up, then run the tests; make test-slow runs those of kills, faults and the like
# make docs  set up, then build the site of docs/ into site/
# make results-data  copy tables of RESULTS (a folder of results) into docs/data: EXPERIMENTS, or all
#     that have tables, as run with CONFIGFILE
# make results-page  draw docs/figures and write the generated parts of pages from docs/data
# make docs-generated  write what follows from the settings: their schema and docs/configuration.md

PYTHON ?= python3
VENV ?= .venv
RESULTS ?= results
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN = $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
    --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-slow docs setup setup-dev setup-docs docs-generated results-data results-page \
    clean

run: setup
	$(BIN)/snakemake --cores $(CORES)
	@echo "What the pictures in results/*/figures show: docs/figures.md"

test: setup-dev
	$(PYTEST)

test-slow: setup-dev
	$(PYTEST) -m slow

docs: setup-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The pages: site/index.html"

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

setup-docs: $(VENV)/.installed-docs

$(VENV)/.installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.installed-dev: envs/requirements-dev.txt $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt
	touch $@

$(VENV)/.installed-docs: envs/requirements-docs.txt $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-docs.txt
	touch $@

docs-generated: setup
	$(BIN)/python workflow/schemas/generate.py

results-data: setup
	$(BIN)/python -m stiffness.pages collect --results $(RESULTS) \
	    $(if $(CONFIGFILE),--configfile $(CONFIGFILE)) -- $(EXPERIMENTS)

results-page: setup
	$(BIN)/python -m stiffness.pages draw

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
