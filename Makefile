# All targets start from nothing but make and Python 3.10 or newer.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready

.PHONY: demo test lint slow

demo: $(READY)
	$(VENV)/bin/videoprism-mlx demo -o demo

test: lint
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	@touch $(READY)
