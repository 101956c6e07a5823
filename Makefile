# One tool chain for people and CI. `make` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
REAL ?= ../shared/data/real_ct128

.DEFAULT_GOAL := help
.PHONY: help install demo demo-short real test test-all test-slurm lint format types notebooks bench docs ci clean clean-demo

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv and install the package with its test tools

# torch first, alone and pinned: any other order or version pulls gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints/cpu.txt
	@echo "installing into $(VENV) (about 3 minutes the first time)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt -e '.[dev]'
	touch $@

demo: $(STAMP) ## phantom -> Zarr -> train -> infer -> post-process -> score, 3 to 5 minutes on 2 cores
	$(BIN)/vesuvius phantom $(DEMO)/kaggle --train 10 --test 2 --shape 128 128 128 --seed 0
	$(BIN)/vesuvius prepare $(DEMO)/kaggle $(DEMO)/prepared
	$(BIN)/vesuvius verify $(DEMO)/prepared/train --picture $(DEMO)/labels.png
	$(BIN)/python train.py experiment=demo data.root=$(DEMO)/prepared/train hydra.run.dir=$(DEMO)/run
	$(BIN)/python infer.py run_dir=$(DEMO)/run volume=$(DEMO)/prepared/test out_dir=$(DEMO)/masks hydra.run.dir=$(DEMO)/infer

demo-short: $(STAMP) ## the same chain on 64^3 volumes in about a minute: for CI, not for quality
	$(BIN)/vesuvius phantom $(DEMO)-short/kaggle --train 4 --test 1 --shape 64 64 64 --seed 0
	$(BIN)/vesuvius prepare $(DEMO)-short/kaggle $(DEMO)-short/prepared
	$(BIN)/vesuvius verify $(DEMO)-short/prepared/train --picture $(DEMO)-short/labels.png
	$(BIN)/python train.py experiment=demo_short data.root=$(DEMO)-short/prepared/train hydra.run.dir=$(DEMO)-short/run
	$(BIN)/python infer.py run_dir=$(DEMO)-short/run volume=$(DEMO)-short/prepared/test out_dir=$(DEMO)-short/masks hydra.run.dir=$(DEMO)-short/infer

real: $(STAMP) ## the demo's network on a real scan: REAL=folder with image.tif and band_b.tif
	@sh -c 'test -d $(REAL) || { echo "no real sample in $(REAL): nothing to do"; exit 1; }'
	@sh -c 'test -f $(DEMO)/run/result.json || { echo "run make demo first: it trains the network"; exit 1; }'
	$(BIN)/vesuvius prepare $(REAL) $(DEMO)/real --images image.tif --labels band_b.tif --ignore-zero
	$(BIN)/vesuvius verify $(DEMO)/real --picture $(DEMO)/real_labels.png
	$(BIN)/python infer.py run_dir=$(DEMO)/run volume=$(DEMO)/real out_dir=$(DEMO)/real_masks hydra.run.dir=$(DEMO)/infer_real
	$(BIN)/python train.py experiment=demo_real data.root=$(DEMO)/real weights=$(DEMO)/run/checkpoints/best.ckpt hydra.run.dir=$(DEMO)/run_real

test: $(STAMP) ## the test suite, at most 5 minutes
	$(BIN)/python -m pytest -n auto --dist loadfile

test-all: $(STAMP) ## with the slow and the two-process tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not gpu and not slurm"

test-slurm: $(STAMP) ## a sweep and a preempted job on a real SLURM (CI=true installs one), about 5 minutes
	$(BIN)/python -m pytest -m slurm tests/slurm

lint: $(STAMP) ## ruff, import contracts, notebook outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/nbstripout --verify notebooks/*.ipynb

format: $(STAMP) ## format and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

types: $(STAMP) ## mypy, strict on vesuvius
	$(BIN)/mypy

notebooks: $(STAMP) ## execute the notebooks
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 -W default notebooks

docs: $(STAMP) ## build the documentation site into site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(STAMP) ## every benchmark, ratios against named peers (about half an hour)
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt -e '.[bench]'
	@for file in data loss inference postprocess metric winding phantom; do \
	  echo "== benchmarks/$$file.py"; $(BIN)/python benchmarks/$$file.py || exit 1; done

ci: lint types docs test-all demo-short notebooks ## what .ci/run calls

clean: ## caches only, never runs or data
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-demo: ## the demo's folders
	rm -rf $(DEMO) $(DEMO)-short
