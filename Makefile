# phi4: plain venv and pip. `make` lists the targets; a second run of any of them installs nothing.
#
#   make run                          # nano answers about pictures and recordings
#   make test                         # the test suite
#   make test PYTEST_ARGS='-k rope'   # a part of it
#   make run PYTHON=/opt/python3.12/bin/python3
#   make nano NANO_ARGS='--device cuda --workers 8'
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                     # torch from this index as well: the CPU build, 0.2 GB in place of 3 GB with CUDA

SHELL := /bin/sh
VENV ?= .venv
PYTHON ?=
TORCH_INDEX ?=
PYTEST_ARGS ?=
NANO_DIR ?= runs/nano
# Two cores get two hours in all, the measuring included; the steps are fitted to the time.
NANO_ARGS ?= --minutes 108

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Printed before torch is fetched, where it matters: PyPI's build for Linux brings CUDA along.
TORCH_HINT := $(if $(TORCH_INDEX),,command -v nvidia-smi >/dev/null || \
	echo "no NVIDIA driver here: if pip fetches CUDA, stop it and give TORCH_INDEX (see the head of the Makefile)")
FOR_RUN := $(VENV)/.installed-torch
FOR_TEST := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check parity slow nano examples interop clean

help: ## list these targets
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

run: $(FOR_RUN) ## install, then show nano at work on pictures, recordings, a command and a sum
	@$(BIN)/phi4 demo

test: $(FOR_TEST) ## run the test suite (slow tests left out)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(FOR_TEST) ## format, lint, types, import contracts
	@$(BIN)/ruff format --check src tests scripts benchmarks
	@$(BIN)/ruff check src tests scripts benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports

parity: $(FOR_TEST) ## compare with the reference implementation only
	@$(BIN)/python -m pytest tests/parity $(PYTEST_ARGS)

slow: $(FOR_TEST) ## the tests that take minutes or gigabytes
	@$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# The C library keeps freed memory instead of handing it back at every step: 5% more steps a minute.
nano: export MALLOC_MMAP_THRESHOLD_ = 4294967296
nano: export MALLOC_TRIM_THRESHOLD_ = 8589934592
nano: export MALLOC_TOP_PAD_ = 67108864
nano: export MALLOC_ARENA_MAX = 2
nano: $(FOR_TEST) ## train nano anew (resumes when stopped), then measure it
	@$(BIN)/phi4 train nano --out $(NANO_DIR) $(NANO_ARGS)
	@$(BIN)/phi4 eval $(NANO_DIR)/model --out $(NANO_DIR)/eval

examples: $(FOR_TEST) ## make examples/media again from its held-out seeds
	@$(BIN)/python scripts/make_examples.py

# llama-cpp-python compiles llama.cpp, which takes minutes; the two packages go into the environment of the tests.
interop: $(FOR_TEST) ## greedy tokens of exported models in onnxruntime-genai and llama.cpp against ours
	@rm -rf build/interop && mkdir -p build/interop
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps onnxruntime-genai==0.18.0
	@for precision in fp32 int8 int4; do \
		$(BIN)/phi4 export nano --out build/interop/$$precision --precision $$precision --modalities text && \
		$(BIN)/python benchmarks/interop_genai.py build/interop/$$precision || exit 1; done
	@$(PIP_INSTALL) llama-cpp-python==0.3.36
	@for dtype in float32 float16; do \
		$(BIN)/phi4 export nano --format gguf --out build/interop/$$dtype.gguf --dtype $$dtype && \
		$(BIN)/python benchmarks/interop_llamacpp.py build/interop/$$dtype.gguf --model nano || exit 1; done

clean: ## remove the environment and the tools' caches (keeps runs/)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$$(sh scripts/find-python.sh $(PYTHON)) || exit 1; \
		echo "making $(VENV) with $$python"; "$$python" -m venv $(VENV)

$(FOR_RUN): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing phi4 with torch into $(VENV) (once; torch is most of it)"
	@$(or $(TORCH_HINT),:)
	@$(PIP_INSTALL) -e '.[torch]'
	@touch $@

$(FOR_TEST): pyproject.toml constraints.txt | $(BIN)/python
	@sh scripts/system-packages.sh --missing >&2 || sh scripts/system-packages.sh --line >&2
	@echo "installing phi4 with torch and the tools for training and testing into $(VENV) (once)"
	@$(or $(TORCH_HINT),:)
	@$(PIP_INSTALL) -e '.[torch,train,video,dev]'
	@touch $@ $(FOR_RUN)
