#!/usr/bin/env bash
# Sourced by scripts that build a program of others into the user's cache.

# built_once CACHE NAME COMMAND...: makes the folder CACHE/NAME if it is not there: COMMAND fills a new folder, which it gets as its
# last argument. Several callers at once wait for the one that builds. Once for each script: it takes the lock and the trap of its end.
built_once() {
  local cache=$1 folder=$1/$2
  shift 2
  [[ ! -d $folder ]] || return 0
  mkdir -p "$cache"
  exec {lock}>"$cache/.lock"
  flock "$lock"
  # Looked at again, as another caller may have built it while this one waited.
  [[ ! -d $folder ]] || return 0
  # What an interrupted build left; nobody else is building, as the lock is ours.
  rm -rf -- "$cache"/new.*
  new=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf -- "$new"' EXIT
  "$@" "$new"
  chmod 755 "$new"
  mv -T -- "$new" "$folder"
}
