#!/usr/bin/env bash
# Checks for the programs that ostler and its tests need besides Rust.
#
# usage: scripts/deps.sh [--test | --lint | --node]
#
# What is missing is installed when this runs as root on a system with apt-get; else it says what to run and fails.
# With --test, what builds and runs the test API server counts, too; with --lint, the tools of `make lint`; with --node,
# what the test node needs besides the API server.
set -euo pipefail
cd "$(dirname "$0")/.."

# The version that CI was tried with; any installed version is accepted.
cargo_deny_version=0.20.2

say() { printf 'deps: %s\n' "$*" >&2; }

missing=()
need() { # need PROGRAM PACKAGE
  command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

need git git
need cc gcc
need bwrap bubblewrap
need jq jq
need ssh-keygen openssh-client
case ${1:-} in
  --test)
    need flock util-linux
    # It is not in the search path of ordinary users.
    need /usr/sbin/sshd openssh-server
    ;;
  --lint) need shellcheck shellcheck ;;
  --node)
    need containerd containerd
    need runc runc
    need nft nftables
    need ip iproute2
    need unshare util-linux
    need readelf binutils
    need mmdebstrap mmdebstrap
    need musl-gcc musl-tools
    [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || missing+=(debian-archive-keyring)
    # The one of Debian's package busybox needs a C library.
    [[ -e /bin/busybox ]] && ! readelf --program-headers /bin/busybox | grep -q INTERP || missing+=(busybox-static)
    ;;
esac

if ((${#missing[@]})); then
  if ! command -v apt-get >/dev/null 2>&1; then
    say "missing: ${missing[*]} (Debian's names); install them and try again"
    exit 1
  elif [[ $(id -u) -ne 0 ]]; then
    say "missing: ${missing[*]}; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null 2>&1; then
  say "missing: cargo; the Rust version is in rust-toolchain.toml"
  exit 1
fi

# Debian's Go is too old for Kubernetes, so it is not installed here.
go_version=$(awk '$1 == "go" { print $2; exit }' tests/cluster/go.mod)
if [[ ${1:-} == --lint ]] && ! command -v gofmt >/dev/null 2>&1; then
  say "missing: gofmt, which comes with Go $go_version or later: https://go.dev/dl"
  exit 1
fi
if [[ ${1:-} == --test ]] && ! command -v go >/dev/null 2>&1; then
  say "missing: go, for tests/alongside and to build the Kubernetes API server that the tests talk to; install Go $go_version"
  say "or later from https://go.dev/dl; with KUBEBUILDER_ASSETS, a folder with etcd, kube-apiserver and kubectl, cargo test needs none"
  exit 1
fi

# A kernel may forbid what bubblewrap needs; better to know now than in the first run.
if ! bwrap --unshare-all --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 /usr/bin/true; then
  say "bubblewrap is installed, but this system lets nobody make user and network namespaces"
  say "see: sysctl kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns"
  exit 1
fi

if [[ ${1:-} == --lint ]] && ! command -v cargo-deny >/dev/null 2>&1; then
  say "installing cargo-deny $cargo_deny_version into cargo's home; this takes minutes, once"
  cargo install --locked --quiet "cargo-deny@$cargo_deny_version"
fi
