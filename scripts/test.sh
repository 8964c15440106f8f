#!/usr/bin/env bash
# Runs `cargo test` once, as one part of `make test`.
#
# usage: scripts/test.sh PART [ARGUMENT OF CARGO TEST]...
#
# Where CI is set, at most 3 tests that fail are run once more, each alone. If they pass, the part passes, and they are
# named with what they said first in target/test-report.json and at the end of the log. More than that, a build or a
# test program that breaks off, or a doc test, fails at once.
#
# With OSTLER_TEST_REPORT, the scenarios write into that folder; without, it is test-report in cargo's target folder.
set -euo pipefail
cd "$(dirname "$0")/.."

part=${1:?usage: scripts/test.sh PART [ARGUMENT OF CARGO TEST]...}
shift
most=3
export OSTLER_TEST_REPORT=${OSTLER_TEST_REPORT:-${CARGO_TARGET_DIR:-$PWD/target}/test-report}
mkdir -p "$OSTLER_TEST_REPORT"

if [[ -z ${CI:-} ]]; then
  exec cargo test --locked "$@"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
log=$folder/log
again=$folder/again
# All of them, as one failure is no reason not to know of the others.
if cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log"; then
  exit 0
fi

give_up() { printf 'test.sh: %s: %s; nothing is run again\n' "$part" "$*" >&2; exit 1; }

# Test programs that did not come to their end.
broken=$(awk '
  /^ +(Running|Doc-tests) /  { if (open) print open; open = $0 }
  /^test result: /           { open = "" }
  END                        { if (open) print open }' "$log")
[[ -z $broken ]] || give_up "broke off:$broken"
grep -qE '^ +(Running|Doc-tests) ' "$log" || give_up "it was not built"

# "TARGET TEST" of each failure; a target is what cargo calls it on its command line.
failed=$(awk '
  /^ +Doc-tests /                         { target = "doc" }
  /^ +Running unittests src\/lib\.rs /    { target = "--lib" }
  /^ +Running tests\/it\/main\.rs /       { target = "--test=it" }
  /^ +Running / && !/ src\/lib\.rs / && !/ tests\/it\/main\.rs / { target = "other" }
  /^test .* \.\.\. FAILED$/ {
    sub(/^test /, ""); sub(/ \.\.\. FAILED$/, ""); sub(/ - should panic$/, "")
    print target, $0
  }' "$log")
[[ -n $failed ]] || give_up "no test has failed, and yet cargo has"
count=$(wc -l <<<"$failed")
((count <= most)) || give_up "$count tests have failed"
if grep -vE '^--(lib|test=it) [A-Za-z0-9_:]+$' <<<"$failed"; then
  give_up "these cannot be run alone"
fi

# What libtest printed of a failed test, up to the next one or the list of them.
said() {
  awk -v head="---- $1 stdout ----" '
    $0 == head { on = 1; next }
    /^---- .* stdout ----$/ || /^failures:$/ { on = 0 }
    on' "$log" | head -c 65536
}

while read -r target name; do
  printf '\ntest.sh: %s: %s failed; it is run once more, alone\n' "$part" "$name" >&2
  cargo test --locked "$target" -- --exact "$name" --include-ignored --test-threads=1 2>&1 </dev/null | tee "$again"
  grep -q '^test result: ok\. 1 passed;' "$again" || give_up "$name was not run"
  jq -nc --arg part "$part" --arg test "$name" --arg output "$(said "$name")" '{$part, $test, $output}' \
    >>"$OSTLER_TEST_REPORT/flaky.jsonl"
done <<<"$failed"
