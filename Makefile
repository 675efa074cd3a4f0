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

.venv/.docs: .venv/bin/python pyproject.toml
	$(PIP) install --quiet --editable '.[docs]'
	@touch $@

.venv/.release: .venv/bin/python pyproject.toml
	$(PIP) install --quiet --editable '.[release]'
	@touch $@

demo: .venv/.demo ## rerank real documents in LangChain and LlamaIndex, before and after (no torch)
	$(BIN)/python examples/demo.py

demo-s3: .venv/.demo-s3 ## two stages over a table on object storage: a local S3 server, or yours (no torch)
	$(BIN)/python examples/object_storage/demo.py

# Of the runtimes only onnxruntime has no such switch. A processor that has no more than AVX2 runs the same tests twice.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 OV_CPU_MAX_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
LOCAL := $(patsubst %,tests/engine/test_%.py,causal_lm export listwise makers onnx runtimes sentence_transformers dynamic_batching special_tokens) \
	tests/backends/test_embedded.py tests/backends/test_families.py tests/cli/test_golden.py tests/contract/test_backends.py

# Only these files hold tests that ask a clock; to collect all takes half a minute more.
CLOCK = $(shell grep -rlE --include='test_*.py' 'mark\.alone' tests)

# Files of thorough tests alone. To collect what is left out would take as long as hundreds of tests.
THOROUGH = $(shell grep -rlE --include='test_*.py' '^pytestmark = pytest.mark.thorough' tests)

test: .venv/.dev lint ## lint, types and the test suite
	$(BIN)/python -m pytest -m "alone and not slow" $(CLOCK)  # one process first: it leaves the bytecode of the tests for the others
	$(BIN)/python -m pytest -n 3 --dist worksteal --durations=10 $(addprefix --ignore=,$(THOROUGH)) \
		-m "not slow and not alone and not thorough"  # half of the time is waiting

# LanceDB brings pandas, and schemathesis is for the server: to import both takes as long as hundreds of tests.
quick: .venv/.dev ## core, policies, adapters and vendors: the inner loop
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -p no:schemathesis $(addprefix --ignore=,tests/adapters/test_lancedb.py $(THOROUGH)) \
		-m "not slow and not alone and not thorough" tests/core tests/policies tests/adapters tests/vendors

test-all: .venv/.dev ## the tests that take minutes or an environment of their own, and one law for many vendors
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 -m "(slow or thorough) and not alone"
	$(BIN)/python -m pytest -m "slow and alone"
	$(AVX2) $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10 -m "not slow and not alone" $(LOCAL)

test-oldest: .venv/.dev ## the oldest supported versions of the frameworks and the SDKs, in environments of their own
	$(BIN)/python -m pytest -m slow tests/test_oldest.py tests/vendors/test_oldest_sdks.py

SECONDS ?= 60
fuzz: .venv/.dev ## random specs, documents, replies, cancellations and requests, SECONDS of each (60)
	RERANK_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -m slow tests/fuzz
	$(BIN)/python tests/fuzz/serve_driver.py --seconds $(SECONDS)

lint: .venv/.dev ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Of Material's makers: they ask their users to leave MkDocs, in eleven lines a build.
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: .venv/.docs ## the documentation as a site, in site/; every link and anchor is checked
	$(BIN)/python -m mkdocs build --strict

docs-serve: .venv/.docs ## the documentation at http://127.0.0.1:8000, built anew when a page changes
	$(BIN)/python -m mkdocs serve

release-check: .venv/.dev .venv/.release ## build sdist and wheel, check both, and use the wheel without the source tree
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_install.py tests/test_release.py

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

interop: .venv/.dev ## real servers and real clients against ours, minutes and gigabytes under .interop/ (not in CI)
	$(BIN)/python tests/interop/run.py

.PHONY: help docs docs-serve demo demo-s3 test quick test-all test-oldest release-check fuzz lint format bench interop
