# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST ?= .venv-lowest
MINUTES ?= 3
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: demo test fast float64 lowest attack lint hooks bench gpu docs clean

demo: $(STAMP)  ## train two hourglasses on drawn people, random against adversarial, and audit both
	$(BIN)/python examples/hourglass_mpii.py --out runs/demo

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

hooks: $(STAMP)  ## runs the linters before every commit
	$(BIN)/pre-commit install

bench: $(STAMP)  ## the cost of a step, written to benchmarks/results/
	$(BIN)/python benchmarks/step_overhead.py

gpu: $(STAMP)  ## what only a GPU can answer: its tests, and the cost of a step on it
	$(BIN)/python -m pytest tests/test_devices.py
	$(BIN)/python benchmarks/step_overhead.py --device cuda --precision bf16 --channels-last --name step_overhead_cuda
	$(BIN)/python benchmarks/step_overhead.py --device cuda --precision bf16 --channels-last --compile --name step_overhead_cuda_compiled

docs: $(STAMP)  ## the documentation, in site/
	$(BIN)/python docs/figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

$(LOWEST)/.torch-$(TORCH): pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt "torch==$(TORCH)" --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) runs site
