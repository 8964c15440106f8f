# Every entry point of the house. CI calls these and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Where the scenarios note how they ended; the report beside it has `.json`.
TEST_REPORT := $(or $(CARGO_TARGET_DIR),target)/test-report
.PHONY: help deps demo cluster cluster-node test test-node test-cluster bench bench-cluster lint generate clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Check for the programs that ostler needs; install what is missing when run as root on Debian
	@scripts/deps.sh

demo: deps ## Build, run a real session on a demo config repository, show the result commit
	@scripts/demo.sh

cluster: ## Build the Kubernetes API server and the Helm of the tests, once, into the user's cache
	@scripts/deps.sh --test
	@tests/cluster/build.sh >/dev/null
	@tests/charts/build.sh >/dev/null

test: cluster ## Run every test, and the scenarios once more with their objects on a Kubernetes API server
	@rm -rf "$(TEST_REPORT)" "$(TEST_REPORT).json"
	scripts/test.sh everything
	OSTLER_TEST_ENGINE=kubernetes scripts/test.sh kubernetes --test it scenarios::
	cd tests/alongside && CGO_ENABLED=0 go test -mod=readonly -trimpath ./...
	cargo run --locked --quiet --example ostler-test-report -- "$(TEST_REPORT)" embedded kubernetes

cluster-node: cluster ## Build the programs of the test node and of its images, once, into the user's cache
	@scripts/deps.sh --node
	@tests/cluster/build.sh --node >/dev/null
	@tests/cluster/build.sh --pods >/dev/null
	@tests/cluster/debian.sh >/dev/null
	@scripts/static.sh >/dev/null

test-node: ## Run the tests that need a Kubernetes node of their own, as root
	@[[ $$(id -u) -eq 0 ]] || { echo "make test-node runs kubelet and containerd, so it needs root: sudo make test-node" >&2; exit 1; }
	@$(MAKE) --no-print-directory cluster-node
	@rm -f "$(TEST_REPORT)"/node-*.jsonl
	scripts/test.sh node --test it node:: -- --ignored --test-threads=1
	@# the suite for any cluster, on a node as on anybody's
	cargo run --locked --quiet --example ostler-test-node -- \
	  $(MAKE) --no-print-directory test-cluster OSTLER_TEST_PULL_POLICY=Never
	cargo run --locked --quiet --example ostler-test-report -- "$(TEST_REPORT)" node cluster

test-cluster: ## Run the suite on any cluster: KUBECONFIG=FILE OSTLER_IMAGE=NAME:TAG OSTLER_TEST_AGENT_IMAGE=NAME:TAG
	@for name in KUBECONFIG OSTLER_IMAGE OSTLER_TEST_AGENT_IMAGE; do \
	  [[ -n $${!name:-} ]] || { echo "make test-cluster needs $$name; tests/cluster/README.md says what it is" >&2; exit 1; }; \
	done
	@$(MAKE) --no-print-directory cluster
	@tests/cluster/build.sh --pods >/dev/null
	@rm -f "$(TEST_REPORT)"/cluster-*.jsonl
	scripts/test.sh cluster --test it anywhere::cluster:: -- --ignored --test-threads=1
	cargo run --locked --quiet --example ostler-test-report -- "$(TEST_REPORT)" cluster

bench: deps ## Measure against git and bwrap by hand; write target/bench.json and docs/benchmarks.md
	cargo bench --locked --bench ostler

bench-cluster: cluster ## Measure in a cluster of its own (as root on a node, too); write target/bench-cluster.json and docs/benchmarks.md
	@tests/cluster/kwok/build.sh >/dev/null
	@# what is measured on a node is a test; without root the bench says that this is left out
	@if [[ $$(id -u) -eq 0 ]]; then $(MAKE) --no-print-directory cluster-node; scripts/static.sh --bench >/dev/null; \
	  cargo test --locked --profile bench --test it --no-run; fi
	cargo bench --locked --bench cluster

lint: ## Format, clippy, docs, shell scripts, licences and banned crates
	@scripts/deps.sh --lint
	cargo fmt --check
	test -z "$$(gofmt -l tests/cluster tests/alongside | tee /dev/stderr)"
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	shellcheck $$(scripts/shell-files.sh)
	@# what is built elsewhere only is not there yet, and the check reads it all
	cargo fetch --locked --quiet
	cargo deny --offline check licenses bans sources

generate: ## Write schemas, CRDs, OpenAPI, the references in docs/ and deploy/ anew
	@scripts/generate.sh

clean: ## Remove what was built and the demo's folder
	cargo clean
	@scripts/demo.sh --clean
