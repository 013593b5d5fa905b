# phi4: plain venv and pip. `make` lists the targets; a second run of any of them installs nothing.
#
#   make run                          # nano answers about pictures and recordings
#   make test                         # the test suite
#   make test PYTEST_ARGS='-k rope'   # a part of it
#   make run PYTHON=/opt/python3.12/bin/python3
#   make nano NANO_ARGS='--device cuda --workers 8'
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                     # torch from this index as well: the CPU build, 0.2 GB in place of 3 GB with CUDA

SHELL := /bin/sh
VENV ?= .venv
PYTHON ?=
TORCH_INDEX ?=
PYTEST_ARGS ?=
NANO_DIR ?= runs/nano
# Two cores get two hours in all, the measuring included; the steps are fitted to the time.
NANO_ARGS ?= --minutes 108
PEERS ?= build/peers
OPENAI_JS ?= build/openai-js
OPENAI_JS_VERSION ?= 6.49.0
DEVICE_ARGS ?=
SERVING_ARGS ?=
GUARDS ?=
# Set to 1 for onnxruntime-genai as a peer too: its builder takes about 20 GB of memory.
GENAI ?=

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Printed before torch is fetched, where it matters: PyPI's build for Linux brings CUDA along.
TORCH_HINT := $(if $(TORCH_INDEX),,command -v nvidia-smi >/dev/null || \
	echo "no NVIDIA driver here: if pip fetches CUDA, stop it and give TORCH_INDEX (see the head of the Makefile)")
PEER_NAMES := ours llamacpp transformers openvino $(if $(GENAI),genai)
PEER_PIP = $(PEERS)/$(1)/bin/python -m pip install --quiet --disable-pip-version-check \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
LLAMA_SOURCE := $(PEERS)/source/.patched
LLAMA_WHEEL := $(PEERS)/wheels/.made
LLAMA_SERVER := $(PEERS)/llamaserver/.made
TORCH_PIN = $(shell grep '^torch==' constraints.txt)
FOR_RUN := $(VENV)/.installed
FOR_TEST := $(VENV)/.installed-dev
FOR_JS := $(OPENAI_JS)/.installed-$(OPENAI_JS_VERSION)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check parity slow serve-slow serve-js guards nano examples interop bench-peers bench-device bench-serving clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

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

serve-slow: $(FOR_TEST) ## the server alone: kills, drains, disconnects, hostile requests by the thousand
	@$(BIN)/python -m pytest -m slow tests/unit/server tests/integration -k 'server or serve' $(PYTEST_ARGS)

guards: $(FOR_TEST) ## take each guard of the server out and see that tests notice (GUARDS='A23 B4.turn': these alone)
	@$(BIN)/python scripts/without_guards.py $(GUARDS)

serve-js: $(FOR_TEST) $(FOR_JS) ## the server asked by OpenAI's JavaScript package (needs node and npm)
	@OPENAI_JS=$(OPENAI_JS) $(BIN)/python -m pytest tests/integration/test_serve_openai_js.py $(PYTEST_ARGS)

$(FOR_JS):
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "serve-js needs node and npm" >&2; exit 1; }
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(OPENAI_JS) openai@$(OPENAI_JS_VERSION)
	@touch $@

# The C library keeps freed memory instead of handing it back at every step: 5% more steps a minute.
nano: export MALLOC_MMAP_THRESHOLD_ = 4294967296
nano: export MALLOC_TRIM_THRESHOLD_ = 8589934592
nano: export MALLOC_TOP_PAD_ = 67108864
nano: export MALLOC_ARENA_MAX = 2
nano: $(FOR_TEST) ## train nano anew (resumes when stopped), write its ONNX package, measure it
	@$(BIN)/phi4 train nano --out $(NANO_DIR) $(NANO_ARGS)
	@$(BIN)/phi4 export $(NANO_DIR)/model --out $(NANO_DIR)/model/onnx --precision int8
	@$(BIN)/phi4 eval $(NANO_DIR)/model --out $(NANO_DIR)/eval

examples: $(FOR_TEST) ## make examples/media again from its held-out seeds
	@$(BIN)/python scripts/make_examples.py

# The two packages go into the environment of the tests. Random prompts reach up to 4,096 tokens, genai's also across.
interop: $(FOR_TEST) $(LLAMA_WHEEL) ## greedy tokens of exported models in onnxruntime-genai and llama.cpp against ours
	@rm -rf build/interop && mkdir -p build/interop
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps onnxruntime-genai==0.18.0
	@for precision in fp32 int8 int4; do \
		$(BIN)/phi4 export nano --out build/interop/$$precision --precision $$precision --modalities text && \
		$(BIN)/python benchmarks/interop_genai.py build/interop/$$precision \
			--lengths 2,100,500,1000,2000,3000,4032,4090 || exit 1; done
	@$(PIP_INSTALL) $(PEERS)/wheels/llama_cpp_python-*.whl
	@for dtype in float32 float16; do \
		$(BIN)/phi4 export nano --format gguf --out build/interop/$$dtype.gguf --dtype $$dtype && \
		$(BIN)/python benchmarks/interop_llamacpp.py build/interop/$$dtype.gguf --model nano \
			--lengths 2,100,500,1000,2000,3000,4032 || exit 1; done

# Peers are of bench-device; bench-serving has llama.cpp's server beside it.
bench-peers: $(PEER_NAMES:%=$(PEERS)/%/.installed) $(LLAMA_SERVER) ## environments of the peers (compiles llama.cpp)

# A peer that cannot be installed here is left out and shown as skipped: make -k bench-peers; make bench-device.
bench-device: $(PEERS)/ours/.installed ## full-size models beside the peers: hours, 40 GB (DEVICE_ARGS=--quick: minutes)
	@$(PEERS)/ours/bin/python benchmarks/device.py --peers $(PEERS) $(DEVICE_ARGS)

bench-serving: $(PEERS)/ours/.installed ## the server under load, nano: half an hour (SERVING_ARGS='--soak-minutes 15')
	@$(PEERS)/ours/bin/python benchmarks/serving.py --peers $(PEERS) $(SERVING_ARGS)

$(PEER_NAMES:%=$(PEERS)/%/bin/python): $(PEERS)/%/bin/python:
	@python=$$(sh scripts/find-python.sh $(PYTHON)) || exit 1; "$$python" -m venv $(PEERS)/$*

# Ours without torch: what a device gets, and a server.
$(PEERS)/ours/.installed: pyproject.toml constraints.txt | $(PEERS)/ours/bin/python
	@$(call PEER_PIP,ours) -c constraints.txt -e '.[export,serve]'
	@touch $@

# Of llama.cpp; gcc 12 needs a barrier where AMX tiles are configured.
$(LLAMA_SOURCE): benchmarks/peers/patch_llamacpp.py | $(PEERS)/llamacpp/bin/python
	@rm -rf $(PEERS)/source && mkdir -p $(PEERS)/source
	@$(PEERS)/llamacpp/bin/python -m pip download --quiet --disable-pip-version-check --no-deps \
		--no-binary llama-cpp-python --dest $(PEERS)/source llama-cpp-python==0.3.36
	@tar -xzf $(PEERS)/source/llama_cpp_python-*.tar.gz -C $(PEERS)/source --strip-components=1
	@$(PEERS)/llamacpp/bin/python benchmarks/peers/patch_llamacpp.py $(PEERS)/source
	@touch $@

# Compiled for this very processor. Also what interop runs.
$(LLAMA_WHEEL): $(LLAMA_SOURCE)
	@echo "compiling llama.cpp: ten minutes and more on two cores"
	@rm -rf $(PEERS)/wheels && mkdir -p $(PEERS)/wheels
	@CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" $(PEERS)/llamacpp/bin/python -m pip wheel --quiet \
		--disable-pip-version-check --no-deps --wheel-dir $(PEERS)/wheels $(PEERS)/source
	@touch $@

# The same sources as a server, without its page and without what would fetch models.
$(LLAMA_SERVER): $(LLAMA_SOURCE)
	@echo "compiling llama.cpp's server: ten minutes and more on two cores"
	@$(call PEER_PIP,llamacpp) cmake ninja
	@$(PEERS)/llamacpp/bin/cmake -S $(PEERS)/source/vendor/llama.cpp -B $(PEERS)/llamaserver/build -G Ninja \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(PEERS))/llamacpp/bin/ninja -DCMAKE_BUILD_TYPE=Release \
		-DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF \
		-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
		-DLLAMA_BUILD_APP=OFF >/dev/null
	@$(PEERS)/llamacpp/bin/cmake --build $(PEERS)/llamaserver/build --target llama-server llama-quantize >/dev/null
	@mv $(PEERS)/llamaserver/build/bin/llama-server $(PEERS)/llamaserver/build/bin/llama-quantize \
		$(PEERS)/llamaserver/
	@rm -rf $(PEERS)/llamaserver/build
	@touch $@

$(PEERS)/llamacpp/.installed: $(LLAMA_WHEEL)
	@$(call PEER_PIP,llamacpp) $(PEERS)/wheels/llama_cpp_python-*.whl
	@touch $@

$(PEERS)/transformers/.installed: constraints.txt | $(PEERS)/transformers/bin/python
	@$(or $(TORCH_HINT),:)
	@$(call PEER_PIP,transformers) -c constraints.txt torch transformers accelerate peft safetensors numpy
	@touch $@

# optimum-intel says which transformers it can read; torchvision, which comes along, stops it on a text model.
$(PEERS)/openvino/.installed: constraints.txt | $(PEERS)/openvino/bin/python
	@$(or $(TORCH_HINT),:)
	@$(call PEER_PIP,openvino) $(TORCH_PIN) 'openvino-genai==2026.4.*' 'optimum-intel[openvino]==2.2.*' nncf
	@$(PEERS)/openvino/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

$(PEERS)/genai/.installed: constraints.txt | $(PEERS)/genai/bin/python
	@$(or $(TORCH_HINT),:)
	@$(call PEER_PIP,genai) -c constraints.txt onnxruntime-genai==0.18.0 onnxruntime onnx onnx-ir torch transformers
	@touch $@

clean: ## remove the environment and the tools' caches (keeps runs/)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$$(sh scripts/find-python.sh $(PYTHON)) || exit 1; \
		echo "making $(VENV) with $$python"; "$$python" -m venv $(VENV)

$(FOR_RUN): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing phi4 into $(VENV) (once; ONNX Runtime answers, torch is not needed)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(FOR_TEST): pyproject.toml constraints.txt | $(BIN)/python
	@sh scripts/system-packages.sh --missing >&2 || sh scripts/system-packages.sh --line >&2
	@echo "installing phi4 with torch and the tools for training and testing into $(VENV) (once)"
	@$(or $(TORCH_HINT),:)
	@$(PIP_INSTALL) -e '.[torch,train,serve,video,dev]'
	@touch $@ $(FOR_RUN)
