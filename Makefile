# Two commands do everything on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
# Any Python 3.10, 3.11 or 3.12 will do; `make PYTHON=/path/to/python demo` names one.
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach each,python3 python3.12 python3.11 python3.10,$(if $(call in_range,$(each)),$(each))))
VENV ?= .venv
BIN := $(VENV)/bin
MINDNLP := .venv-mindnlp
in_range = $(shell $(1) -c 'import sys; print("yes" * ((3, 10) <= sys.version_info[:2] <= (3, 12)))' 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install demo test chaos docs mindnlp test-mindnlp lint clean

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.demo-installed  ## virtual environment in .venv with the tested versions

demo: $(VENV)/.demo-installed  ## fine-tuning and flooding side by side, attacked; results in runs/demo
	$(BIN)/python run/demo.py

test: $(VENV)/.test-installed lint  ## ruff, mypy, pytest
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

chaos: $(VENV)/.test-installed  ## kills trainings, attacks, conversions and a grid; hours; adds to results/chaos.json
	$(BIN)/python benchmarks/chaos.py

docs: $(VENV)/.docs-installed  ## the documentation site in build/site, which opens from disk
	$(BIN)/python docs/site/pictures.py
	$(BIN)/python docs/site/code_map.py
	# not --quiet, with which --strict sees no warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

mindnlp: $(MINDNLP)/.installed  ## environment for models by way of mindnlp, which cannot share one, in .venv-mindnlp

test-mindnlp: $(MINDNLP)/.installed  ## builds it and tests there: weights, logits, training, beside mindnlp's BERT
	$(MINDNLP)/bin/python -m pytest tests/with_mindnlp

lint: $(VENV)/.test-installed  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## removes what the commands above made, runs/ excepted
	rm -rf $(VENV) $(MINDNLP) *.egg-info build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.%-installed: setup.py pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing into $(VENV), which takes some minutes the first time'
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(MINDNLP)/.installed: setup.py pyproject.toml constraints-mindnlp.txt | $(MINDNLP)/bin/python
	@echo 'installing into $(MINDNLP), which takes some minutes the first time'
	$(MINDNLP)/bin/python -m pip install --disable-pip-version-check --quiet --constraint constraints-mindnlp.txt \
		--editable '.[mindnlp,demo]' pytest hypothesis
	@touch $@

$(BIN)/python $(MINDNLP)/bin/python:
	@if [ -z '$(PYTHON)' ] || [ -z '$(call in_range,$(PYTHON))' ]; then \
		echo "error: $(or $(PYTHON),python3) is not Python 3.10, 3.11 or 3.12; name one that is: make PYTHON=python3.12" >&2; \
		exit 1; \
	fi
	$(PYTHON) -m venv $(@:/bin/python=)
