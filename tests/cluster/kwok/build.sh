#!/usr/bin/env bash
# Prints the folder with the programs of played nodes: kwok, its stages, and streams; builds them into the user's cache
# first, if need be, once for each state of these files.
#
# usage: tests/cluster/kwok/build.sh
#
# Apart from ../build.sh, because a change here must not have Kubernetes built anew.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/built-once.sh
source ../../../scripts/built-once.sh

fail() { printf 'played nodes: %s\n' "$*" >&2; exit 1; }

[[ $# -eq 0 ]] || fail "usage: tests/cluster/kwok/build.sh"
version=$(go list -mod=readonly -m -f '{{.Version}}' sigs.k8s.io/kwok) || fail "there is no Go to build them with"
state=$(cat build.sh go.mod go.sum cmd/*/*.go | sha256sum | cut -c 1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ostler/kwok
name=$version-$state

# What kwok lets nodes and pods go through, as its authors wrote it: a node is ready and a pod runs at once, and a deleted
# pod is gone.
stages() {
  local folder stage
  folder=$(go list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
  for stage in "$folder"/node/{fast/node-initialize,heartbeat-with-lease/node-heartbeat-with-lease}.yaml \
    "$folder"/pod/fast/pod-{ready,delete}.yaml; do
    echo ---
    cat "$stage"
  done
}

build() { # build FOLDER
  printf 'played nodes: building kwok %s into %s; this takes minutes, once\n' "$version" "$cache/$name" >&2
  CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags '-s -w' -o "$1/" ./cmd/streams \
    sigs.k8s.io/kwok/cmd/kwok >&2
  stages >"$1/stages.yaml"
}

built_once "$cache" "$name" build
printf '%s\n' "$cache/$name"
