# Terroir. `make` lists the targets.
PYTHON ?= python3
VENV := .venv/bin
# Two files of tests at a time; more cores take more, and 0 runs them one after the other.
WORKERS ?= 2
# As collected: xdist's own order, by the number of tests, would begin the slowest files last.
PYTEST := $(VENV)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-minio test test-fast lint types proto proto-accept docs lock images tools tools-cluster test-cluster bench bench-gpu soak clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create .venv and install everything, locked and hashed (instant the second time)
	@$(PYTHON) scripts/setup.py

demo: setup ## Two folders of pictures → two published styles → build/demo/contact_sheet.html
	$(VENV)/terroir demo --out build/demo

demo-minio: setup ## The same demo with every object in a bucket of a real MinIO, started for it
	$(VENV)/python scripts/demo_minio.py --out build/demo-minio

test: setup ## All tests
	$(PYTEST)

test-fast: setup ## Tests without the slow ones
	$(PYTEST) -m "not slow"

lint: setup ## ruff and the import contracts
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/lint-imports

types: setup ## mypy, strict
	$(VENV)/mypy

proto: setup ## Lint the contracts, refuse breaking changes, generate the stubs
	$(VENV)/buf lint
	$(VENV)/buf breaking --against proto/baseline.binpb
	PATH="$(CURDIR)/$(VENV):$$PATH" $(VENV)/python scripts/generate_protos.py

proto-accept: setup ## Make today's contracts the baseline that breaking changes are judged by
	$(VENV)/buf build --output proto/baseline.binpb

docs: setup ## Regenerate the reference pages
	$(VENV)/python scripts/generate_docs.py
	$(VENV)/python scripts/chart_readme.py
	$(VENV)/python scripts/metrics_reference.py

lock: setup ## Rewrite the lock files from pyproject.toml
	$(VENV)/python scripts/lock.py

images: setup ## Build the container images with Docker or Podman (docs/images.md)
	@$(VENV)/python scripts/images.py build

tools: setup ## Build or find the programs that tests need, into a cache outside the tree
	@$(VENV)/python scripts/tools.py

tools-cluster: setup ## Also those that a Kubernetes control plane is made of (ten minutes the first time)
	@$(VENV)/python scripts/tools.py --cluster

test-cluster: tools-cluster ## Every scenario of the chart on a real Kubernetes control plane
	TERROIR_REQUIRE_TOOLS=cluster,helm TERROIR_CLUSTER_SCENARIOS=all $(PYTEST) tests/integration/cluster

bench: setup ## Benchmarks; one area with AREA=registry
	$(VENV)/python -m benchmarks $(if $(AREA),--area $(AREA))

bench-gpu: setup ## An engine on a GPU, SD 1.5-shaped random weights at 512 × 512; AREA=inference or training
	$(VENV)/python -m benchmarks.gpu $(if $(AREA),--area $(AREA))

soak: setup ## Heavy tests at the counts that their issues name; goes on where it stopped
	$(VENV)/python -m benchmarks.soak

clean: ## Remove what was built, not the environment
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
