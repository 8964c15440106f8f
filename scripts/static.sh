#!/usr/bin/env bash
# Builds ostler so that it runs in any image, whatever its C library, and prints where it is.
#
# usage: scripts/static.sh [--release | --bench]
#
# The C library in it looks names up in /etc/hosts and by DNS; it has no other way (NSS) in an image that has no such
# library.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'static: %s\n' "$*" >&2; exit 1; }

profile=debug
case ${1:-} in
  '')
    # Half the size, and as much of a backtrace as an image needs.
    export CARGO_PROFILE_DEV_DEBUG=0
    ;;
  --release) profile=release ;;
  --bench)
    profile=release
    set -- --profile bench
    ;;
  *) fail "usage: scripts/static.sh [--release | --bench]" ;;
esac

# With a target of its own, the flag does not reach build scripts and procedural macros, which cannot be static.
target=$(uname -m)-unknown-linux-gnu
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
cargo build --locked --quiet --bin ostler --target "$target" "$@" >&2
program=$(cargo metadata --locked --offline --no-deps --format-version 1 | jq -r .target_directory)/$target/$profile/ostler

# A program that names an interpreter, or a library it needs, is not static.
if interpreter=$(LC_ALL=C readelf --wide --program-headers --dynamic "$program" | grep -E 'INTERP|\(NEEDED\)'); then
  fail "$program is not static: $interpreter"
fi
"$program" --version >/dev/null || fail "$program does not run"
printf '%s\n' "$program"
