#!/usr/bin/env bash
# Lists our shell scripts, those without a suffix too.
set -euo pipefail
cd "$(dirname "$0")/.."

find scripts .ci examples tests/cluster tests/charts -type f | while read -r file; do
  if head -n 1 "$file" | grep -qE '^#!.*\b(ba)?sh\b'; then
    echo "$file"
  fi
done | sort
