# Every entry point of the house. CI calls these and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps demo cluster cluster-node test test-node bench lint generate clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

cluster-node: cluster ## Build the programs of the test node and of its images, once, into the user's cache
	@scripts/deps.sh --node
	@tests/cluster/build.sh --node >/dev/null
	@tests/cluster/debian.sh >/dev/null
	@scripts/static.sh >/dev/null

test-node: ## Run the tests that need a Kubernetes node of their own, as root
	@[[ $$(id -u) -eq 0 ]] || { echo "make test-node runs kubelet and containerd, so it needs root: sudo make test-node" >&2; exit 1; }
	@$(MAKE) --no-print-directory cluster-node
	cargo test --locked --test it node:: -- --ignored --test-threads=1

bench: deps ## Measure against git and bwrap by hand; write target/bench.json and docs/benchmarks.md
	cargo bench --locked --bench ostler

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
