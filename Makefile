# From a clean clone: `make train` trains and evaluates an agent, `make test` runs every test.
# More arguments go in ARGS: make train ARGS="--seed 1", make test ARGS="-k bm25".

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
DEVELOPED := .venv/.developed
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install train test check bench test-vllm

install: $(DEVELOPED)

# Training needs less than the tests, and starts sooner.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into .venv; the first time this takes some minutes."
	@$(PYTHON) -m venv .venv
	@$(PIP_INSTALL) -e '.[train]'
	@touch $@

$(DEVELOPED): $(INSTALLED)
	@$(PIP_INSTALL) -e '.[train,hub,dense,elasticsearch,http,numba,online,openai,opensearch,serve,dev]'
	@touch $@

train: $(INSTALLED)
	$(BIN)/search-env train --config configs/train/fictional-wiki.yaml $(ARGS)

test: $(DEVELOPED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

check: $(DEVELOPED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEVELOPED)
	@set -e; for script in benchmarks/*.py; do \
		echo "$(BIN)/python $$script"; $(BIN)/python $$script; \
	done

test-vllm:
	@echo "make test-vllm: the vLLM engine is not built yet, so there is nothing to test." >&2; exit 2
