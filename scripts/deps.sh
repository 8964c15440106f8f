#!/usr/bin/env bash
# Checks for the programs that ostler and its tests need besides Rust.
#
# usage: scripts/deps.sh [--lint]
#
# What is missing is installed when this runs as root on a system with apt-get; else it says what to run and fails.
# With --lint, the tools of `make lint` count, too.
set -euo pipefail

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
need /usr/sbin/sshd openssh-server
if [[ ${1:-} == --lint ]]; then
  need shellcheck shellcheck
fi

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
