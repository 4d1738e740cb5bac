# Every target makes its own environment in .venv; nothing has to be installed before.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint mnist clean

demo: $(VENV)/.demo
	$(RUN) examples/demo.py

test: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2  # more threads would only wait for each other

# DATA is a folder with mnist.npz: X_train, y_train, X_test, y_test.
mnist: $(VENV)/.demo
	$(RUN) benchmarks/mnist.py --data $(DATA) --max-iter 40 --init both --output docs/mnist.md

$(VENV)/.demo $(VENV)/.test: $(VENV)/.%: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
