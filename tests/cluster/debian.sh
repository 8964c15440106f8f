#!/usr/bin/env bash
# Prints where the root of a small Debian with git is, as a tar archive; makes it in the user's cache first, if need be.
#
# usage: tests/cluster/debian.sh
#
# Made by root with mmdebstrap from Debian's packages: a minute the first time, nothing later.
set -euo pipefail

suite=bookworm
packages=git,ca-certificates
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ostler/cluster
root=$cache/debian-$suite-$(sha256sum <"$0" | cut -c 1-12).tar

if [[ ! -f $root ]]; then
  mkdir -p "$cache"
  exec {lock}>"$cache/.debian-lock"
  flock "$lock"
fi
# Looked at again, as another caller may have made it while this one waited.
if [[ ! -f $root ]]; then
  printf 'test node: making %s; this takes a minute, once\n' "$root" >&2
  rm -f -- "$cache"/new-debian.*.tar
  new=$(mktemp "$cache/new-debian.XXXXXX.tar")
  trap 'rm -f -- "$new"' EXIT
  mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" --format=tar "$suite" - >"$new"
  mv -T -- "$new" "$root"
fi
printf '%s\n' "$root"
