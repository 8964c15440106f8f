#!/usr/bin/env bash
# Writes everything that is generated from the sources: JSON Schemas, CRDs, OpenAPI, and the references in docs/.
# Everything is made in a temporary folder first, so that a failure leaves the committed files alone.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --quiet
ostler=${CARGO_TARGET_DIR:-target}/debug/ostler

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir "$new/schemas"

"$ostler" schema --all --dir "$new/schemas"
"$ostler" docs openapi >"$new/schemas/openapi.json"
"$ostler" docs cli >"$new/cli.md"
"$ostler" docs manifests >"$new/manifests.md"
for file in "$new"/schemas/* "$new"/*.md; do
  [[ -s $file ]] || { echo "generate: ${file#"$new/"} is empty" >&2; exit 1; }
done

# The folder is replaced as a whole, so that the schema of a kind that is gone goes, too.
rm -rf schemas
cp -R "$new/schemas" schemas
cp "$new/cli.md" "$new/manifests.md" docs/
