# Two commands matter: `make demo` and `make test`. Everything lands in .venv and the user's cache folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench bench-quality models smollm2 proto torch clean help
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or later is needed"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@echo "installing; the first time, llama-cpp-python is compiled for this processor: about 6 minutes"
	@# Hides setuptools' advice on editable installs with mapped folders; errors still show.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: models ## The whole service on one real user, then an evaluation on all unseen ones
	$(BIN)/edge-reranker demo
	$(BIN)/edge-reranker evaluate

test: models smollm2 ## All tests
	$(BIN)/python -m pytest

models: $(READY)
	@$(BIN)/edge-reranker model pull >&2
	@$(BIN)/edge-reranker data pull movielens-100k >&2

smollm2: $(READY)
	@$(BIN)/edge-reranker model pull smollm2-135m >&2

check: $(READY) ## Lint, types, contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	BIN=$(BIN) .ci/check-proto

bench: models smollm2 ## Benchmarks; each ends with one JSON line
	$(BIN)/python -m benchmarks

bench-quality: models torch ## The whole protocol of quality, in JSON; some minutes
	$(BIN)/edge-reranker evaluate --full --rounds --json

proto: $(READY) ## Regenerate the stubs from proto/
	PYTHON=$(BIN)/python .ci/stubs

torch: $(READY) ## What `edge-reranker train` needs besides
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch

clean: ## Remove what was built here (the model cache stays)
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
