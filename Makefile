# Every target makes the environment that it needs, under .venv/<python version>/, and
# makes it anew when pyproject.toml has changed. Paths are relative, so that the folder
# above may have any name.

PYTHON ?= python3
WORKERS ?= auto

VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])" 2>/dev/null)
ENVS := .venv/$(VERSION)
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# Each of these has a section of its own in .ci/run.
HEAVY := slow or torch or backend or browser or notebook

.DEFAULT_GOAL := help
.PHONY: help demo test unit smoke lint types bench docs clean python

help:  ## Show this list
	@echo "make TARGET [PYTHON=python3.12] [WORKERS=4]"
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  \1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '  %-8s%s\n' $$name "$$text"; done

demo: $(ENVS)/demo/.stamp  ## Train a small model on handwritten digits, watched by drytrack
	@$(ENVS)/demo/$(BIN)/python examples/digits.py $(ARGS)

test: unit smoke  ## Run the tests, and a smoke test of the built wheel

unit: $(ENVS)/test/.stamp  ## Run the tests alone, without the heavy ones
	@$(ENVS)/test/$(BIN)/python -m pytest -q -n $(WORKERS) -m "not ($(HEAVY))"

smoke: $(ENVS)/test/.stamp  ## Build the wheel and try it where only its dependencies are
	@rm -rf $(ENVS)/dist
	@$(ENVS)/test/$(BIN)/python -m build --outdir $(ENVS)/dist . > $(ENVS)/build.log 2>&1 \
		|| { cat $(ENVS)/build.log; exit 1; }
	@$(PYTHON) -m venv --clear $(ENVS)/wheel
	@$(ENVS)/wheel/$(BIN)/python $(PIP_INSTALL) $(ENVS)/dist/drytrack-*.whl
	@$(ENVS)/wheel/$(BIN)/python -I -W error tests/smoke/smoke.py

lint: $(ENVS)/dev/.stamp  ## Check style and format with ruff
	@$(ENVS)/dev/$(BIN)/python -m ruff check .
	@$(ENVS)/dev/$(BIN)/python -m ruff format --check .

types: $(ENVS)/dev/.stamp  ## Check types with mypy
	@$(ENVS)/dev/$(BIN)/python -m mypy

bench: $(ENVS)/bench/.stamp  ## Measure what drytrack costs
	@code=0; for file in benchmarks/[!_]*.py; do \
		echo "== $$file"; \
		$(ENVS)/bench/$(BIN)/python "$$file" || code=1; \
	done; exit $$code

docs: $(ENVS)/test/.stamp  ## Check the documents: links, programs, options and figures
	@$(ENVS)/test/$(BIN)/python -m pytest -q $(patsubst %,tests/unit/test_%.py, \
		architecture docs figures guarantees readme reference storage_page)

clean:  ## Remove environments, builds and caches, but no run
	@rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find drytrack tests examples benchmarks -name __pycache__ -prune \
		-exec rm -rf {} +

# An environment that breaks half-way has no stamp and is made anew next time.
$(ENVS)/%/.stamp: pyproject.toml | python
	@echo "Making the $* environment in $(ENVS)/$* ..."
	@$(PYTHON) -m venv --clear $(ENVS)/$*
	@$(ENVS)/$*/$(BIN)/python $(PIP_INSTALL) $(REQUIREMENTS)
	@touch $@

$(ENVS)/backend/.stamp: REQUIREMENTS = --editable ".[all,notebook,test]"
$(ENVS)/bench/.stamp: REQUIREMENTS = --editable ".[plot,report,system]" blinker pluggy pyee
$(ENVS)/demo/.stamp: REQUIREMENTS = --editable ".[plot]" "scikit-learn>=1.4"
$(ENVS)/dev/.stamp: REQUIREMENTS = --editable ".[dev]"
$(ENVS)/notebook/.stamp: REQUIREMENTS = --editable ".[notebook,test]" "scikit-learn>=1.4"
# One for each backend that does not install together with the others.
$(ENVS)/only-%/.stamp: REQUIREMENTS = --editable ".[$(*:only-%=%),test]"
$(ENVS)/only-visdom/.stamp: export PIP_CONSTRAINT = $(CURDIR)/.ci/constraints.txt
$(ENVS)/only-visdom/.stamp: export PIP_BUILD_CONSTRAINT = $(CURDIR)/.ci/constraints.txt
$(ENVS)/test/.stamp: REQUIREMENTS = --editable ".[test]"

python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
		echo "drytrack needs Python 3.11 or newer; $(PYTHON) is '$(VERSION)'." \
			"Name another: make PYTHON=python3.12" >&2; \
		exit 1; \
	}
