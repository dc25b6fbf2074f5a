# Needs Python 3.11 or newer and make; everything else goes into .venv, once.
#   make demo PROMPT="a blue boat at night"     make test ARGS="-k prompts"     make demo PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PROMPT ?= a big orange balloon in the desert
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-processors test-full lint types format references parity benchmark benchmark-load laws fuzz docs site tutorial host-time adherence guidances train clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/	/' | expand -t 14

demo: $(VENV)/.runtime ## draw a picture with the bundled model and print its path
	@$(BIN)/sdcore sample "$(PROMPT)" --seed 3 --out out/ $(ARGS)

test: $(VENV)/.test ## run the tests (ARGS="-k name" to choose)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# What depends on how a processor rounds shows under the kernels of others, which torch has too.
OTHERS = tests/schedulers/test_quirks.py tests/schedulers/test_fields.py \
	tests/schedulers/test_beside_diffusers.py tests/schedulers/test_ode_beside_others.py \
	tests/schedulers/test_sde_beside_diffusers.py tests/schedulers/test_stochastic.py
test-processors: $(VENV)/.test ## the comparisons of schedulers with other processors' kernels
	@ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(OTHERS)
	@ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n auto $(OTHERS)

test-full: $(VENV)/.test ## the slow tests: published sizes (16 GB of memory), every recorded run, every number of steps
	@$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.test ## ruff: rules and layout
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.test ## pyright on the package
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.test ## let ruff lay out the code
	@$(BIN)/ruff check --fix --select I .
	@$(BIN)/ruff format .

references: $(VENV)/.test ## record the reference tensors again (tests/reference/)
	@$(BIN)/python -m scripts.make_reference $(ARGS)

parity: $(VENV)/.test ## compare components and whole runs with diffusers, here and now
	@$(BIN)/python -m scripts.parity $(ARGS)

benchmark: $(VENV)/.test ## time sdcore and diffusers on the bundled model
	@$(BIN)/python -m scripts.benchmark $(ARGS)

benchmark-load: $(VENV)/.test ## time sdcore and diffusers at loading a model of SD 1.5's size (7 GB of memory)
	@$(BIN)/python -m scripts.load_benchmark $(ARGS)

laws: $(VENV)/.test ## the laws of every solver on twenty times as many runs
	@$(BIN)/python -m pytest tests/schedulers/test_laws.py --times 20 $(ARGS)

fuzz: $(VENV)/.test ## garbled files, settings, prompts, numbers and requests (ARGS="--times 50" for thousands)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz tests/server/test_fuzzed.py $(ARGS)

docs: $(VENV)/.test ## write docs/orders.md, orders-flow.md, changes.md, parity.md and files.md
	@$(BIN)/python -m scripts.write_docs $(ARGS)
	@$(BIN)/python -m scripts.flow_orders
	@$(BIN)/python -m scripts.file_kinds

site: $(VENV)/.runtime ## the docs as a site, with the reference: build/site/index.html
	@$(PIP) --editable ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server -d build/site"

tutorial: $(VENV)/.runtime ## run every chapter of docs/tutorial/: its pictures, what it prints, the seconds
	@$(BIN)/python -m scripts.tutorial $(ARGS)

host-time: $(VENV)/.test ## time scheduler and guidance a step, beside diffusers
	@$(BIN)/python -m scripts.host_time $(ARGS)

adherence: $(VENV)/.runtime ## measure how well the bundled model follows prompts
	@$(BIN)/python -m scripts.adherence $(ARGS)

guidances: $(VENV)/.test ## try every guidance from weak to strong: docs/guidances.md (half an hour; matplotlib)
	@$(PIP) --editable ".[plot]"
	@$(BIN)/python -m scripts.guidances $(ARGS)

train: $(VENV)/.runtime ## train the bundled model from nothing (ARGS="--quick" for a minute's trial)
	@$(BIN)/python -m scripts.train $(ARGS)

clean: ## remove the environment and what the tools left
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis

# Stamps: a second call installs nothing unless the frame itself has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("sdcore needs Python 3.11 or newer; this is %d.%d: make PYTHON=python3.12" % v[:2])'
	@echo "setting up $(VENV) (once) ..." >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sdcore and what it runs on ..." >&2
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sdcore and its test tools ..." >&2
	@$(PIP) --editable ".[test]"
	@touch $(VENV)/.runtime $@
