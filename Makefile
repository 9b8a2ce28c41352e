# Everything happens in a virtual environment of its own, .venv; `make PYTHON=/path/to/python3.12 ...` chooses another Python.

VENV := .venv
BIN := $(VENV)/bin
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
METADATA := setup.cfg pyproject.toml setup.py

.PHONY: help demo test clean

help:
	@echo "make demo   train a small U-Net on drawn cells and show the result in runs/demo (a few minutes, no GPU)"
	@echo "make test   lint, types and the whole test suite"
	@echo "make clean  remove the environment, build products and caches (runs/ stays)"
	@echo "make help   this list"

demo: $(VENV)/stamp-demo
	$(BIN)/minitorch-unet demo --output runs/demo

# One BLAS thread for each of the two test processes, or they fight for the cores.
test: $(VENV)/stamp-test
	$(BIN)/ruff check .
	$(BIN)/mypy minitorch_unet
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an installation that was interrupted is done again.
$(VENV)/stamp-venv:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
		"make: needs Python 3.11 or newer, found $(or $(PYTHON),none); name one with make PYTHON=/path/to/python3.11" \
		>&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/stamp-demo: $(VENV)/stamp-venv $(METADATA)
	$(PIP) --editable '.[plots]'
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-venv $(METADATA)
	$(PIP) --editable '.[test]'
	@touch $@
