# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FOR_DEMO := $(VENV)/.for-demo
STAMP := $(VENV)/.installed
LOWEST ?= .venv-lowest
MINUTES ?= 3
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: demo test fast float64 lowest attack lint hooks bench gpu docs clean

# Networks this small gain little from more threads, and where other programs run these wait for each other.
demo: $(FOR_DEMO)  ## train two hourglasses on drawn people, by random views and against weak spots, and audit both
	OMP_NUM_THREADS=1 $(BIN)/python examples/hourglass_mpii.py --out runs/demo

test: lint float64  ## everything that CI runs
	$(BIN)/python -m pytest -n auto

fast: $(STAMP)  ## the tests that take seconds
	$(BIN)/python -m pytest -n auto -m "not slow"

float64: $(STAMP)  ## the tests of numbers, under a default dtype of float64
	ADAUG_TEST_DTYPE=float64 $(BIN)/python -m pytest -n auto -m numeric

lowest: $(LOWEST)/.torch-$(TORCH)  ## the fast tests with the lowest dependencies; `TORCH=2.6.0` for the lowest torch too
	$(LOWEST)/bin/python -m pytest -n auto -m "not slow" -W default

attack: $(STAMP)  ## minutes of bad inputs, states and files, kills and uneven ranks; `MINUTES=9` for more of them
	$(BIN)/python -W ignore tests/attack.py --minutes $(MINUTES)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

hooks: $(STAMP)  ## runs the linters before every commit
	$(BIN)/pre-commit install

bench: $(STAMP)  ## the cost of a step, written to benchmarks/results/
	$(BIN)/python benchmarks/step_overhead.py

gpu: $(STAMP)  ## what only a GPU can answer: its tests, and the cost of a step on it
	$(BIN)/python -m pytest tests/model/test_devices.py
	$(BIN)/python benchmarks/step_overhead.py --device cuda --precision bf16 --channels-last --name step_overhead_cuda
	$(BIN)/python benchmarks/step_overhead.py --device cuda --precision bf16 --channels-last --compile --name step_overhead_cuda_compiled

docs: $(STAMP)  ## the documentation, in site/
	$(BIN)/python docs/figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Most of a set-up's time goes into compiling modules that the demo never imports. Python compiles those that it does.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable

$(FOR_DEMO): pyproject.toml constraints.txt
	@echo "Set-up, once: PyTorch and what the demo needs go into $(VENV) (a minute or two)."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[examples]"
	@touch $@

$(STAMP): $(FOR_DEMO)
	@echo "Set-up, once: what linters, tests and pages need goes into $(VENV) too (a minute or two)."
	$(INSTALL) ".[dev]"
	$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true  # or tests would meet the warnings of others' code
	@touch $@

$(LOWEST)/.torch-$(TORCH): pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt "torch==$(TORCH)" --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) runs site
