# `make demo` and `make test` are all the set-up there is; the second run of either installs nothing.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo studies english test test-system test-all test-bitwise calibration sim chaos browser check format bench clean

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

# torch stands in the same command with an exact version: a range would draw the CUDA build, several GB.
$(STAMP): pyproject.toml constraints.txt tests/s3-constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Seedbed needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt "torch==2.13.0" -e ".[dev]"
	$(PYTHON) -m venv .venv/s3
	.venv/s3/bin/python -m pip install -q -c tests/s3-constraints.txt "moto[s3]" flask flask-cors
	@touch $(STAMP)

setup: $(STAMP)  ## make the virtual environment .venv

demo: setup  ## train the demo study on this machine and show what it found
	$(BIN)/seedbed run jobs/studies/demo.yaml --store demo-store

studies: setup  ## train the miniatures of all studies, with figures and estimates; goes on where it was stopped
	$(BIN)/python docs/make_studies.py studies-store

english: setup  ## train 16 language models on the English of the installed packages: docs/studies/english.md
	$(BIN)/python docs/examples/english_text.py english.jsonl
	$(BIN)/seedbed tokenize english.jsonl --to corpora/english --train 1024
	$(BIN)/seedbed run jobs/studies/english.yaml --store english-store

# What takes minutes, because it kills real processes or repeats a study thousands of times.
SYSTEM := tests/benchmarks tests/bitwise tests/calibration tests/contract tests/dashboard/test_control.py tests/e2e tests/orchestrator/mirrors tests/sim \
	tests/test_integrations.py $(addprefix tests/orchestrator/test_,laws.py make_studies.py parts.py) \
	$(addprefix tests/workers/test_,harness.py interdependence.py low_rank.py odd_sizes.py polca.py processes.py scripted.py shapley_probe.py shown.py steps_alike.py structural_probe.py zero.py)

test: setup  ## run the tests
	$(BIN)/python -m pytest -n 2 --durations 12 --durations-min 4 -m "not slow" --ignore=tests/browser $(addprefix --ignore=,$(SYSTEM))

test-system: setup  ## kill workers, nodes and stores, damage files, count coverage: the part of it that CI runs
	$(BIN)/python -m pytest -n 2 --durations 12 --durations-min 4 -m "not slow" $(SYSTEM)

test-all: setup  ## run all tests, the slow ones too
	$(BIN)/python -m pytest -n 2

test-bitwise: setup  ## every kill point, every damaged file, the whole matrix of packs: whole, not in part
	$(BIN)/python -m pytest -n 2 --full tests/bitwise tests/workers/test_engine.py tests/workers/test_pack.py tests/orchestrator/test_verify.py

calibration: setup  ## every cell of coverage at 2,000 repetitions (CI tries fewer), and the table of what they showed
	$(BIN)/python -m pytest -n 2 --full -o junit_family=xunit1 --junitxml=calibration.xml tests/calibration
	$(BIN)/python -m tests.calibration.table calibration.xml

sim: setup  ## ten thousand simulated histories of the head, its workers and its store
	$(BIN)/python -m tests.sim --seeds 10000

chaos: setup  ## a thousand faults on a real Ray, a bucket and a small disk; SEEDBED_CHAOS_FAULTS says how many
	SEEDBED_CHAOS_FAULTS=$${SEEDBED_CHAOS_FAULTS:-1000} $(BIN)/python -m pytest -n 0 -s --full tests/e2e/test_chaos.py

browser: setup  ## drive the dashboard in a real Chromium (apt-get install -y chromium)
	$(BIN)/python -m pytest -n 0 tests/browser

check: setup  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## measure side by side with peers (needs the extra `benchmarks` for JAX and datasets)
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.checkpointing
	$(BIN)/python -m benchmarks.sharded
	$(BIN)/python -m benchmarks.orchestration
	$(BIN)/python -m benchmarks.orchestration --ray
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.statistics

clean:  ## remove the virtual environment and the demo's store
	rm -rf .venv demo-store demo-store.report studies-store studies-store.report english-store english-store.report english.jsonl corpora/english
