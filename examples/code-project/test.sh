#!/bin/sh
# Tests of login.sh.
failed=0

accepts() {
  if ! sh login.sh "$1" >/dev/null 2>&1; then
    echo "FAIL: $1 is refused"
    failed=1
  fi
}

refuses() {
  if sh login.sh "$1" >/dev/null 2>&1; then
    echo "FAIL: $1 is accepted"
    failed=1
  fi
}

accepts ada
accepts Ada
accepts GRACE
refuses mallory
refuses ""

[ "$failed" = 0 ] && echo "all tests pass"
exit "$failed"
