#!/usr/bin/env bash
# Prints the folder with the programs of played nodes: kwok, its stages, and streams; builds them into the user's cache
# first, if need be, once for each state of these files.
#
# usage: tests/cluster/kwok/build.sh
#
# Apart from ../build.sh, because a change here must not have Kubernetes built anew.
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf 'played nodes: %s\n' "$*" >&2; exit 1; }

[[ $# -eq 0 ]] || fail "usage: tests/cluster/kwok/build.sh"
version=$(go list -mod=readonly -m -f '{{.Version}}' sigs.k8s.io/kwok) || fail "there is no Go to build them with"
state=$(cat build.sh go.mod go.sum cmd/*/*.go | sha256sum | cut -c 1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ostler/kwok
programs=$cache/$version-$state

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

mkdir -p "$cache"
exec {lock}>"$cache/.lock"
flock "$lock"
if [[ ! -d $programs ]]; then
  printf 'played nodes: building kwok %s into %s; this takes minutes, once\n' "$version" "$programs" >&2
  # What an interrupted build left; nobody else is building, as the lock is ours.
  rm -rf -- "$cache"/new.*
  new=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf -- "$new"' EXIT
  CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags '-s -w' -o "$new/" ./cmd/streams \
    sigs.k8s.io/kwok/cmd/kwok >&2
  stages >"$new/stages.yaml"
  chmod 755 "$new"
  mv -T -- "$new" "$programs"
fi
printf '%s\n' "$programs"
