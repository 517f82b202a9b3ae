# All targets start from nothing but make and Python 3.10 or newer.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
DOCS_READY := $(VENV)/ready-docs
# The package as it is installed, with convert/ inside: what mypy, import-linter and the docs read.
HOUSE := build/house

.PHONY: demo test lint style types house docs slow attack

demo: $(READY)
	$(VENV)/bin/videoprism-mlx demo -o demo

test: lint
	$(VENV)/bin/python -m pytest -n 3 --dist worksteal

lint: style types

style: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(READY) house
	cd $(HOUSE) && $(CURDIR)/$(VENV)/bin/lint-imports --config $(CURDIR)/.importlinter
	cd $(HOUSE) && $(CURDIR)/$(VENV)/bin/mypy --config-file $(CURDIR)/pyproject.toml videoprism_mlx $(CURDIR)/examples

house:
	@rm -rf $(HOUSE) && mkdir -p $(HOUSE)
	@cp -R videoprism_mlx $(HOUSE)/ && cp -R convert $(HOUSE)/videoprism_mlx/convert

docs: $(DOCS_READY) house
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow

attack: $(READY)
	$(VENV)/bin/python -m pytest -m attack

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python has no venv module (on Debian and Ubuntu it is in python3-venv); without root," \
		"name another Python, such as one from uv or conda: make PYTHON=/path/to/python3"; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	@touch $(READY)

$(DOCS_READY): $(READY)
	PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --editable '.[docs]'
	@touch $(DOCS_READY)
