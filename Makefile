# Two commands on a fresh machine:  make demo  (a real sweep, 2 minutes)   make test  (the test suite)
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# TensorFlow imports in 5 s with byte code cached and in 14 s without.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX = $(abspath $(VENV))/pycache
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-long test-faults bench lint clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/sweep run search_spaces/digits.py --name demo --trials 8
	$(BIN)/sweep retrain demo
	$(BIN)/sweep best demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -m "not fault_slow and not long" -n 2 --dist loadfile

test-long: $(VENV)/installed-test
	$(BIN)/python -m pytest -m "long"

test-faults: $(VENV)/installed-test
	$(BIN)/python -m pytest tests/faults

# Side by side with a plain Keras loop, Keras Tuner and Optuna, then our own overhead: 2 to 3 hours of an otherwise idle machine.
# Gray CIFAR-10 is read from IMGCLF_SWEEP_DATA and left out without it.
BENCH_REPEAT ?= 3
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.compare digits --trials 30 --repeat $(BENCH_REPEAT) --out build/bench/digits-30.json
	$(BIN)/python -m benchmarks.compare digits --trials 100 --repeat $(BENCH_REPEAT) --out build/bench/digits-100.json
	test -z "$$IMGCLF_SWEEP_DATA" || $(BIN)/python -m benchmarks.compare gray --repeat $(BENCH_REPEAT) --out build/bench/gray.json
	$(BIN)/python -m benchmarks.overhead --out build/bench/overhead.json
	$(BIN)/python -m benchmarks.epochs

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
