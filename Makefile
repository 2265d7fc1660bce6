# What there is: `make help`. Each target does the set-up itself where it is needed.

# The first CPython 3.11 or 3.12 that runs; another by `make PYTHON=/path/to/python3.12`.
FITTING := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c '$(FITTING)' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
BIN := .venv/bin
# The stages that DVC starts are `python -m …`: they must find the environment's.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
DOCKER ?= docker
TAG ?= latest
export DOCKER_BUILDKIT := 1

# The train image is built for CUDA where there is a GPU, else as the CPU build that only tests need.
GPU := $(wildcard /dev/nvidia0)
TRAIN_ARGS ?= $(if $(GPU),,--build-arg BASE=debian:bookworm-slim --build-arg TORCH=cpu)
# Labels of an image, by its Dockerfile and its build's arguments: which commit of what, and which base; one that is not here
# is fetched to tell its digest. Who may fetch the source is nobody's business.
base = $(or $(patsubst BASE=%,%,$(filter BASE=%,$(2))),$(shell sed -n 's/^ARG BASE=//p' $(1)))
inspect = $(DOCKER) image inspect --format '{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}' $(1)
digest = $(shell $(inspect) 2>/dev/null || { $(DOCKER) pull --quiet $(1) && $(inspect); } 2>/dev/null | tail -n 1 | sed 's/.*@//')
SOURCE = $(shell git config remote.origin.url | sed -nE 's!^(https?://)([^/@]*@)?!\1!p; s!^git@([^:/]+):!https://\1/!p')
labels = $(foreach label,BASE_DIGEST=$(call digest,$(call base,$(1),$(2))) REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
  SOURCE=$(SOURCE),--build-arg $(label))

.DEFAULT_GOAL := help
.PHONY: help python setup repro compare promote checkpoints test test-long test-families test-next test-gpu test-model chaos chaos-docker ray-sweep lint docs lock audit serve mlflow bench bench-export bench-image bench-train bench-quality bench-halving bench-serve bench-speculation bench-visitors load images wheels clean chaos-sweep turn-chaos turn verify-cpus

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1|/' | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

python:
	@echo $(PYTHON)

setup:  ## the virtual environment .venv with the locked versions (no-op when it is there)
	@$(PYTHON) scripts/setup.py

repro: setup  ## run the pipeline: prepare, train, export, evaluate, report; then print the results
	@$(RUN) $(BIN)/tunesmith repro

compare: setup  ## evaluated runs side by side, and which to serve; make compare ARGS="RUN… compare.max_answer_seconds=2"
	@$(RUN) $(BIN)/tunesmith compare $(ARGS)

turn: setup  ## make the next champion of what visitors said; others, by make turn ARGS="train.lr=1e-4"
	@$(RUN) $(BIN)/tunesmith turn $(ARGS)

promote: setup  ## make the evaluated model the champion if it is better; ARGS=--force: all the same, ARGS=--rollback: undo
	@$(RUN) $(BIN)/tunesmith promote $(ARGS)

checkpoints: setup  ## list the checkpoints; remove some by PRUNE=7d (unused for so long) or PRUNE=name
	@$(RUN) $(BIN)/tunesmith checkpoints $(if $(PRUNE),--prune $(PRUNE))

serve: setup  ## open the chat on http://localhost:7860
	@$(RUN) $(BIN)/tunesmith serve

PORT ?= 5000
mlflow: setup  ## open the tracked runs on http://localhost:5000; for others: make mlflow PORT=5001 HOST=0.0.0.0 HOSTS=a,b
	@$(RUN) $(BIN)/tunesmith mlflow --port $(PORT) $(if $(HOST),--host $(HOST)) $(if $(HOSTS),--allowed-hosts $(HOSTS))

# So many files of tests at a time, for two cores: some tests wait for what they have started. Each takes up to 4 GB.
JOBS ?= 3
test: setup  ## run all tests, three files at a time; others, by make test JOBS=4 PYTEST_ARGS="-k serve"
	@$(RUN) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-long: setup  ## the tests that `make test` leaves out since they take long: more families, blows, launchers, the image's variants
	@$(RUN) $(BIN)/python -m pytest -m long --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-families: setup  ## tiny models of all families through all stages, as every type; `make test` makes three types of some
	@$(RUN) $(BIN)/python -m pytest tests/families -m "not model" --long

test-next:  ## the tests with the newest Hydra, Hub client, Transformers, PEFT and TRL, in .cache/next-venv; what breaks, and why
	@$(PYTHON) scripts/test_next.py --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-gpu: setup  ## the tests that need a GPU: every way of training against plain float32, learning curves
	@$(RUN) $(BIN)/python -m pytest tests/gpu -rA -s

test-model: setup  ## the whole pipeline on a real model out of a Python package, in ten minutes
	@$(RUN) $(BIN)/python -m pytest tests/pipeline/test_real_model.py -m model -s

# Another engine or a single round: make chaos CHAOS_ARGS="--only 7".
ROUNDS ?= 30
SEED ?= 1
chaos: setup  ## kill the train stage at random moments, 30 times; others, by make chaos SEED=2 ROUNDS=10
	@$(RUN) $(BIN)/python tests/chaos/chaos.py --rounds $(ROUNDS) --seed $(SEED) $(CHAOS_ARGS)

chaos-docker: setup  ## the same under runtime=docker: docker kill, docker stop and engine restarts, 20 times; needs the train image
	@$(RUN) $(BIN)/python tests/chaos/docker_chaos.py --rounds 20 --seed $(SEED) $(CHAOS_ARGS)

ray-sweep: setup  ## a sweep on a Ray cluster of two network namespaces, one of which is killed; as root, with Ray installed
	@$(RUN) $(BIN)/python tests/pipeline/sweeps/ray_nodes.py

chaos-sweep: setup  ## the same of sweeps, their workers, their disks and their MLflow
	@$(RUN) $(BIN)/python tests/chaos/sweep_chaos.py --rounds $(ROUNDS) --seed $(SEED) $(CHAOS_ARGS)

KILLS ?= 30
turn-chaos: setup  ## kill a turn of the loop at random moments, 30 times; others, by make turn-chaos SEED=2 KILLS=9
	@$(RUN) PYTHONPATH=tests/helpers $(BIN)/python tests/chaos/turn_chaos.py --kills $(KILLS) --seed $(SEED) $(CHAOS_ARGS)

lint: setup  ## ruff's rules and format, mypy's types, no more `Any` than there is
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python scripts/check_any.py

# The site's tools have an environment of their own, so that .venv holds what is run. Material's line is on its successor.
DOCS := .cache/docs
DOCS_NEEDS := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])
docs: $(DOCS)/ready  ## the documentation and the API as a site: site/index.html; a link that leads nowhere fails
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict

$(DOCS)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip install -qq --constraint constraints.txt $$($(PYTHON) -c '$(DOCS_NEEDS)')
	@touch $@

# What looks after the lock has an environment of its own, too.
LOCK := .cache/lock
LOCK_NEEDS := $(subst docs,lock,$(DOCS_NEEDS))
lock: $(LOCK)/ready  ## hashes.txt: the SHA-256 of each file of the versions in constraints.txt; after a change of these
	@$(LOCK)/bin/uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate --output-file hashes.txt constraints.txt

# Of a package that the database does not know it cannot tell, either: --strict.
audit: $(LOCK)/ready  ## known vulnerabilities of the locked versions, as PyPI's database has them; fails where it cannot tell
	@$(LOCK)/bin/python -m pip_audit --strict --disable-pip --no-deps --progress-spinner off --requirement hashes.txt $(AUDIT_ARGS)

$(LOCK)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv --clear $(LOCK)
	@$(LOCK)/bin/python -m pip install -qq --constraint constraints.txt $$($(PYTHON) -c '$(LOCK_NEEDS)')
	@touch $@

bench: setup  ## measure the pipeline and its checkpoints on this machine
	@$(RUN) $(BIN)/python -m benchmarks.pipeline
	@$(RUN) $(BIN)/python -m benchmarks.checkpoints

# A sweep of 108 trials at five seeds, and its grid: hours on two cores, again until nothing is left; WORKERS=16 on more.
bench-halving: setup  ## measure what successive halving finds and spends beside the grid, Optuna and Ray Tune; WORKERS=16
	@$(RUN) $(BIN)/python -m benchmarks.halving --workers $(or $(WORKERS),2)

bench-serve: setup  ## measure the chat server beside llama-server, xllamacpp and plain Llama; builds them first
	@$(RUN) $(BIN)/python -m benchmarks.serve

bench-speculation: setup  ## measure what drafts gain by kind of answer, beside llama-server's; an hour on two cores
	@$(RUN) $(BIN)/python -m benchmarks.speculation

# Three turns of starter-s and five hostile ones. Of the default starter: ARGS="--model starter-m --turns 1 --hostile 0".
bench-visitors: setup  ## measure what turns of the loop are worth, with visitors whose taste is known; ARGS=--quick: a small one
	@$(RUN) $(BIN)/python -m benchmarks.visitors $(ARGS)

bench-image: setup  ## measure the serve image: what is in it, a build after a change, its start; ARGS="--variants few"
	@$(RUN) $(BIN)/python -m benchmarks.image --docker $(DOCKER) $(ARGS)

bench-export: setup  ## measure export beside llama.cpp's own way on weights of 1B and 3B; needs 30 GB of disk
	@$(RUN) $(BIN)/python -m benchmarks.export

bench-train: setup  ## measure LoRA training beside its peers on a GPU, in parts of nine minutes; MODEL=3b for the larger one
	@$(RUN) $(BIN)/python -m benchmarks.train --model $(or $(MODEL),1b)

bench-quality: setup  ## measure what is learnt beside TRL and Unsloth on a GPU; DATA=folder with GSM8K's train.jsonl and test.jsonl
	@$(RUN) $(BIN)/python -m benchmarks.quality --data $(DATA)

load: setup  ## let 64 clients ask the chat server for 10 minutes: failures, answers other than alone, memory that grows
	@$(RUN) $(BIN)/python -m benchmarks.load

verify-cpus: setup  ## train and export the starter under each limit that a processor's libraries can be set; all the same?
	@$(RUN) $(BIN)/python -m benchmarks.same_bytes

images: wheels  ## build the container images tunesmith-serve and tunesmith-train
	$(DOCKER) build --file Dockerfile.serve --tag tunesmith-serve:$(TAG) $(SERVE_ARGS) $(call labels,Dockerfile.serve,$(SERVE_ARGS)) .
	$(DOCKER) build --file Dockerfile.train --tag tunesmith-train:$(TAG) $(TRAIN_ARGS) $(call labels,Dockerfile.train,$(TRAIN_ARGS)) .

# What the images' builds take from their context: llama.cpp as it is compiled here, where an image is of the same kind;
# the train image's test build also the CPU wheel of torch, without which it asks PyTorch's own index. Python 3.11 is
# what its base image has.
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
CPU_WHEEL := --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest wheels torch==$(TORCH)+cpu
wheels: setup
	@$(BIN)/python -m llama.source --share >/dev/null
	@$(if $(GPU),,ls wheels/torch-$(TORCH)+cpu-* >/dev/null 2>&1 || $(BIN)/pip download $(CPU_WHEEL) 2>/dev/null \
	  || echo "no CPU wheel of torch $(TORCH) from pip's index: the image build asks PyTorch's")

clean:  ## remove what can be made again; data/raw, checkpoints, tracked runs and models stay
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache build dist site *.egg-info wheels/*.whl wheels/llama_cpp_*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
