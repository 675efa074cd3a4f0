# `make demo`, `make demo-s3` and `make test` do everything, from a clean clone.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Tests start hundreds of interpreters: without bytecode files each compiles the package anew. Python reads an empty value as unset.
export PYTHONDONTWRITEBYTECODE :=

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade pip

# A stamp an extra: nothing is asked of the registry while pyproject.toml stays as it is.
.venv/.demo: .venv/bin/python pyproject.toml
	$(PIP) install --quiet --editable '.[demo]'
	@touch $@

.venv/.demo-s3: .venv/bin/python pyproject.toml
	$(PIP) install --quiet --editable '.[demo-s3]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	$(PIP) install --quiet torch==2.13.0
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@ .venv/.demo .venv/.demo-s3

demo: .venv/.demo ## rerank real documents in LangChain and LlamaIndex, before and after (no torch)
	$(BIN)/python examples/demo.py

demo-s3: .venv/.demo-s3 ## two stages over a table on object storage: a local S3 server, or yours (no torch)
	$(BIN)/python examples/object_storage/demo.py

# Of the runtimes only onnxruntime has no such switch. A processor that has no more than AVX2 runs the same tests twice.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 OV_CPU_MAX_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
LOCAL := $(patsubst %,tests/engine/test_%.py,causal_lm export listwise makers onnx runtimes sentence_transformers dynamic_batching special_tokens) \
	tests/test_embedded.py tests/test_families.py tests/test_golden.py tests/contract/test_backends.py

# Only these files hold tests that ask a clock; to collect all takes half a minute more.
CLOCK = $(shell grep -rlE --include='test_*.py' 'mark\.alone' tests)

test: .venv/.dev lint ## lint, types and the test suite
	$(BIN)/python -m pytest -m "alone and not slow" $(CLOCK)  # one process first: it leaves the bytecode of the tests for the others
	$(BIN)/python -m pytest -n 3 --dist worksteal --durations=10 -m "not slow and not alone"  # half of the time is waiting

test-all: .venv/.dev ## the tests that take minutes, or an environment of their own
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 -m "slow and not alone"
	$(BIN)/python -m pytest -m "slow and alone"
	$(AVX2) $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 -m "not slow and not alone" $(LOCAL)

SECONDS ?= 60
fuzz: .venv/.dev ## random specs, documents, replies, cancellations and requests, SECONDS of each (60)
	RERANK_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -m slow tests/fuzz
	$(BIN)/python tests/fuzz/serve_driver.py --seconds $(SECONDS)

lint: .venv/.dev ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: .venv/.dev ## mend what ruff can mend
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: .venv/.dev ## speed, side by side with the peers
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/entries.py
	$(BIN)/python benchmarks/local.py
	$(BIN)/python benchmarks/callers.py
	$(BIN)/python benchmarks/hosted.py
	$(BIN)/python benchmarks/soak.py

.PHONY: help demo demo-s3 test test-all fuzz lint format bench
