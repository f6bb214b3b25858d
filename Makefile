# make env     .venv with everything that the demo and the tests need but python-sscha (quick when nothing changed)
# make env-sscha   python-sscha and CellConstructor besides: they build from source, with a Fortran compiler and LAPACK
# make demo    label, train with and without Hessians, compare (about 10 minutes on 2 cores)
# make test    the whole test-suite; where python-sscha cannot be built, its tests are skipped
# make docs    the documentation site, in build/docs; warnings are errors
# make gpu     everything about this machine's GPU: tests, derivatives, step costs, Hessians (about 15 minutes on an H100)
# make test-fairchem   the fairchem adapter's tests, in an environment of their own (.venv-fairchem)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# MACE and fairchem pin different e3nn, so the fairchem adapter is tested in its own environment.
FAIRCHEM := .venv-fairchem
EXTRAS := mace,xtb,dft,select,datasets,executors,ts,phonons,notebooks,dev
export OMP_NUM_THREADS ?= 1

.PHONY: env env-sscha env-fairchem demo demo-full test test-quick test-fairchem bench gpu docs lint clean

env: $(VENV)/.stamp

$(VENV)/.stamp: pyproject.toml constraints.txt adapters/hint_mace/hint_plugins_boot.pth
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0 numpy -c constraints.txt
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]' -c constraints.txt
	touch $@

env-sscha: env
	scripts/env_sscha.sh $(BIN)/python

env-fairchem: $(FAIRCHEM)/.stamp

$(FAIRCHEM)/.stamp: pyproject.toml constraints-fairchem.txt adapters/hint_mace/hint_plugins_boot.pth
	test -x $(FAIRCHEM)/bin/python || $(PYTHON) -m venv $(FAIRCHEM)
	$(FAIRCHEM)/bin/python -m pip install --quiet --upgrade pip
	$(FAIRCHEM)/bin/python -m pip install --quiet torch==2.13.0 numpy -c constraints-fairchem.txt
	$(FAIRCHEM)/bin/python -m pip install --quiet -e '.[fairchem,xtb,datasets,dft,phonons]' pytest hypothesis pytest-xdist -c constraints-fairchem.txt
	touch $@

test-fairchem: env-fairchem
	$(FAIRCHEM)/bin/python -m pytest -n 2 --dist worksteal tests/adapters/fairchem

demo: env
	$(BIN)/hint demo --out demo-out

demo-full: env
	$(BIN)/hint demo --out demo-out-full --seeds 3 --curve

test: env
	@scripts/env_sscha.sh $(BIN)/python || echo "python-sscha is not installed (reason above): its tests are skipped"
	$(BIN)/python -m pytest -n 2 --dist worksteal --nbmake --nbmake-timeout=900 tests recipes

test-quick: env
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

bench: env
	$(BIN)/python benchmarks/training_step.py

# GPU_PYTHON: a Python with torch for this GPU and mace-torch, since the environment above has torch for the CPU.
# WHEELS: a directory of wheels, for a machine without internet; they are installed into that Python first.
GPU_PYTHON ?= python3
WHEELS ?=

gpu:
	$(if $(WHEELS),$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --upgrade $(WHEELS)/*.whl)
	PYTHONPATH=.:adapters:recipes:tests:benchmarks $(GPU_PYTHON) benchmarks/gpu.py --out runs/gpu
	cp runs/gpu/benchmarks-gpu.md docs/benchmarks-gpu.md
	mkdir -p docs/results/gpu && cp runs/gpu/*.csv docs/results/gpu/

docs: env
	$(BIN)/python -m pip install --quiet -e '.[docs]' -c constraints.txt
	rm -rf docs/reference/generated  # pages of names that are gone
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m numpydoc lint $$(find hint_plugins adapters recipes/hint_recipes -name '*.py')

clean:
	rm -rf $(VENV) $(FAIRCHEM) build dist demo-out demo-out-full
