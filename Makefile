# Thin over the command line; `make help` lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PBVS   := $(BIN)/pbvs

# Where the archives and the test inputs lie, and further options of a run.
DATA  ?= archives
TEST  ?= $(DATA)/test
RUNS  ?= runs
OUT   ?= submissions/latest
ARGS  ?=
TASK  ?=

# OpenMP threads that spin while they wait stall each other on machines with other work.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench bench-data bench-score bench-train bench-translate bench-submit bench-start score submission train-task clean-demo
.DELETE_ON_ERROR:

help: ## The targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo '  settings: DATA=archives TEST=$$DATA/test RUNS=runs OUT=submissions/latest ARGS="--weights standin ..."'

install: $(VENV)/installed ## .venv with pbvs and everything it needs, at the tested versions

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: install demo/archives/made ## Synthetic scenes to a checked zip, in a few minutes, without a GPU
	$(PBVS) run --tasks tasks/demo/winning2024 --data demo/archives --test demo/archives/test --runs demo/runs \
	  --out submissions/demo --weights standin $(ARGS)

demo/archives/made: | $(VENV)/installed
	$(PBVS) data synth demo/archives --locations 12 --tiles 32 --test-images 4 --overwrite
	touch $@

clean-demo: ## Delete what the demo made
	rm -rf demo submissions/demo

train-task: install ## Train one task and what it starts from: TASK=sar2rgb DATA=...
	@test -n "$(TASK)" || { echo 'name the task: make train-task TASK=sar2rgb DATA=...'; exit 2; }
	$(PBVS) run $(TASK) --data $(DATA) --runs $(RUNS) --to $(TASK).train $(ARGS)

train-%: ## train-sar2eo, train-sar2rgb: the same, by name
	@$(MAKE) --no-print-directory train-task TASK=$*

score: install ## Translate the test inputs and score them: DATA=... TEST=...
	$(PBVS) run $(TASK) --data $(DATA) --test $(TEST) --runs $(RUNS) --out $(OUT) --to score $(ARGS)

submission: install ## Everything up to the checked zip: DATA=... TEST=...
	$(PBVS) run $(TASK) --data $(DATA) --test $(TEST) --runs $(RUNS) --out $(OUT) --to submit $(ARGS)

test: install ## The tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: install ## Lint, format, types, import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: install ## Bring the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## The whole chain on real images, beside trivial answers: REAL=folder of real images
	$(BIN)/python benchmarks/real_chain.py $(REAL)

bench-train: install ## The training step beside the official order of work (ARGS="--device cuda" on a GPU)
	$(BIN)/python benchmarks/train_step.py --record benchmarks/train_step/record.md $(ARGS)

bench-score: install ## Scoring beside pytorch-fid's command and a loop with lpips: SCRATCH=new folder
	$(BIN)/python benchmarks/score.py $(SCRATCH) --record benchmarks/score/record.md $(ARGS)

bench-translate: install ## Translation beside plain code: SCRATCH=new folder (ARGS="--device cuda" on a GPU)
	$(BIN)/python benchmarks/translate.py $(SCRATCH) --record benchmarks/translate/record.md $(ARGS)

bench-submit: install ## A full set of predictions zipped, beside plain archives: SCRATCH=new folder
	$(BIN)/python benchmarks/submit.py $(SCRATCH) --record benchmarks/submit/record.md $(ARGS)

bench-start: install ## CPU time and memory of the light commands (ARGS="--beside OTHER_CHECKOUT")
	$(BIN)/python benchmarks/start.py --record benchmarks/start/record.md $(ARGS)

bench-data: install ## The data layer beside plain loops: SCRATCH=new folder with 10 GB free
	$(BIN)/python benchmarks/data_layer.py $(SCRATCH) --record benchmarks/data_layer/record.md
