# Every entry point of the house. CI calls these and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps demo cluster test bench bench-cluster lint generate clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Check for the programs that ostler needs; install what is missing when run as root on Debian
	@scripts/deps.sh

demo: deps ## Build, run a real session on a demo config repository, show the result commit
	@scripts/demo.sh

cluster: ## Build the Kubernetes API server of the tests, once, into the user's cache
	@scripts/deps.sh --test
	@tests/cluster/build.sh >/dev/null

test: cluster ## Run every test, and the scenarios once more with their objects on a Kubernetes API server
	cargo test --locked
	OSTLER_TEST_ENGINE=kubernetes cargo test --locked --test it scenarios::

bench: deps ## Measure against git and bwrap by hand; write target/bench.json and docs/benchmarks.md
	cargo bench --locked --bench ostler

bench-cluster: cluster ## Measure on a Kubernetes API server of its own; write target/bench-cluster.json and docs/benchmarks.md
	cargo bench --locked --bench cluster

lint: ## Format, clippy, docs, shell scripts, licences and banned crates
	@scripts/deps.sh --lint
	cargo fmt --check
	test -z "$$(gofmt -l tests/cluster | tee /dev/stderr)"
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	shellcheck $$(scripts/shell-files.sh)
	@# what is built elsewhere only is not there yet, and the check reads it all
	cargo fetch --locked --quiet
	cargo deny --offline check licenses bans sources

generate: ## Write schemas, CRDs, OpenAPI and the references in docs/ anew
	@scripts/generate.sh

clean: ## Remove what was built and the demo's folder
	cargo clean
	@scripts/demo.sh --clean
