# Two commands do everything: `make` reproduces the papers on digits, `make test` checks the kit.

.DEFAULT_GOAL := reproduce
.PHONY: reproduce all test figures lab site talk bench sweep clean clean-runs help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= digits
VENV := .venv
INSTALLED := $(VENV)/installed
RUN := $(VENV)/bin/python -m

reproduce: $(INSTALLED) ## execute the notebooks of the three papers (PROFILE=digits, cifar10 or imagenet); skips what is up to date
	$(RUN) lib.run --papers --profile $(PROFILE)

all: $(INSTALLED) ## execute every notebook
	$(RUN) lib.run --all --profile $(PROFILE)

test: $(INSTALLED) ## lint, format and types, then unit tests, notebook structure and notebook outputs
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	OMP_NUM_THREADS=1 $(RUN) pytest -n logical --maxprocesses 4 --dist loadfile --nbval --nbval-current-env tests notebooks

lab: $(INSTALLED) ## work on copies of the notebooks, in lab/, in JupyterLab
	$(RUN) lib.lab

site: $(INSTALLED) ## the whole course as one offline site: build/site/index.html
	$(RUN) lib.site

talk: $(INSTALLED) ## a ten-minute talk from your records: build/talk/deck.html, .pptx, .pdf (TALK=talk.yaml)
	$(RUN) lib.talk $(TALK)

bench: $(INSTALLED) ## samples a second against the bare forward pass and others' loops (ARGS=--all: of all models)
	$(RUN) benchmarks.throughput $(ARGS)

sweep: $(INSTALLED) ## run a notebook over a grid of parameters: make sweep GRID=sweeps/example.yaml
	$(RUN) lib.sweep $(GRID)

figures: $(INSTALLED) ## draw the README's figure again from the committed records
	$(RUN) results.figures

clean: ## remove the virtual environment and what was built; runs stay
	rm -rf $(VENV) build *.egg-info

clean-runs: ## remove runs/: executed notebooks, records and trained weights
	rm -rf runs

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamp is written last: an interrupted installation is repeated.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV): some minutes, 6 GB on Linux, where torch brings CUDA"
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cluster,photos,talk,site,dev]"
	$(RUN) pip --disable-pip-version-check check
	@$(VENV)/bin/python -c "import torchvision" || { echo "torch and torchvision do not fit together: both must come from one package index"; exit 1; }
	@touch $@
