# Every target makes its own environment in .venv; nothing has to be installed before.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint docs docs-test mnist quality quality-short outliers synthesis imputation counts streaming speed search iwae iwae-short onnx claims clean

demo: $(VENV)/.demo
	$(RUN) examples/demo.py

claims: $(VENV)/.demo
	$(RUN) examples/claims.py --output docs/claims.md

# First those for a GPU, on a simulated one if there is none. With more threads each, the two
# processes would only wait for each other.
test: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --simulated-cuda -m gpu $$(grep -l mark.gpu tests/*.py)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

# The site, in build/docs: build/docs/index.html is its first page. Needs no network.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(RUN) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

# Opens every page of the site in Chromium; pictures of some are left in build/docs-test.
docs-test: $(VENV)/.docs-test docs
	$(RUN) docs/check_site.py build/docs --output build/docs-test

# DATA is a folder with mnist.npz: X_train, y_train, X_test, y_test.
mnist: $(VENV)/.demo
	$(RUN) benchmarks/mnist.py --data $(DATA) --max-iter 40 --init both --output docs/mnist.md

# DATA is a folder of labelled tables, one a file: benchmarks/tables.py says which. A run that
# was stopped goes on where it was.
QUALITY := $(RUN) benchmarks/quality.py --data $(DATA) --jobs 2 --results local/quality.jsonl

quality: $(VENV)/.benchmark
	$(QUALITY) --output docs/quality.md

quality-short: $(VENV)/.benchmark
	$(QUALITY) --short

# DATA is a folder with adbench/ and published/: see benchmarks/outliers.py.
outliers: $(VENV)/.benchmark
	$(RUN) benchmarks/outliers.py --data $(DATA) --jobs 2 --results local/outliers.jsonl \
	    --output docs/outliers.md

# DATA is a folder with adult.npz. CTGAN's TVAE is measured where ctgan is installed.
synthesis: $(VENV)/.benchmark
	$(RUN) benchmarks/synthesis.py --data $(DATA) --set max_iter=100 --set batch_size=500 \
	    --output docs/synthesis.md

speed: $(VENV)/.benchmark
	$(RUN) benchmarks/speed.py --parts steps bound busy inference import --repeats 3 --threads 2 \
	    --output docs/speed.md

# With --part training --device cuda, on a machine that has a GPU, the page gets a section more.
search: $(VENV)/.benchmark
	$(RUN) benchmarks/search.py --output docs/searches.md

onnx: $(VENV)/.benchmark
	$(RUN) benchmarks/onnx_runtime.py --output docs/onnx.md

# DATA is a folder of tables: benchmarks/imputation.py says which.
imputation: $(VENV)/.demo
	$(RUN) benchmarks/imputation.py --data $(DATA) --output docs/imputation.md

# DATA is a folder with octis_m10.npz, newsgroups20_nvdm_test.npz and sc_worm_neuron.npz.
counts: $(VENV)/.demo
	$(RUN) benchmarks/counts.py --data $(DATA) --output docs/counts.md

# Needs 20 GB of disk in FOLDER.
FOLDER ?= local
streaming: $(VENV)/.demo
	$(RUN) benchmarks/streaming.py --folder $(FOLDER) --output docs/streaming.md

# DATA is a folder with mnist.npz.
IWAE := $(RUN) benchmarks/iwae_mnist.py --data $(DATA)

# For a GPU; a run that was stopped goes on where it was.
iwae: $(VENV)/.demo
	$(IWAE) --folder local/iwae

# The order of the bounds alone, in three minutes on two cores.
iwae-short: $(VENV)/.demo
	$(IWAE) --folder local/iwae-short --short --output docs/iwae_mnist.md

$(addprefix $(VENV)/.,demo test benchmark docs docs-test): $(VENV)/.%: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build docs/gallery docs/api/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
