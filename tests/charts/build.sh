#!/usr/bin/env bash
# Prints the path of the real Helm; builds it into the user's cache first, if need be.
#
# usage: tests/charts/build.sh
#
# Built once for each state of these files: a minute the first time, nothing later. Several callers at once wait for the
# one that builds. With HELM, it is that program, of version 3.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=scripts/built-once.sh
source ../../scripts/built-once.sh

fail() { printf 'helm: %s\n' "$*" >&2; exit 1; }

if [[ -n ${HELM:-} ]]; then
  [[ -x $HELM ]] || fail "HELM is $HELM, which is no program"
  printf '%s\n' "$HELM"
  exit 0
fi

version=$(awk '$1 == "helm.sh/helm/v3" { print $2; exit }' go.mod)
client=$(awk '$1 == "k8s.io/client-go" { print $2; exit }' go.mod)
state=$(cat build.sh go.mod go.sum | sha256sum | cut -c 1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ostler/helm
name=$version-$state

build() { # build FOLDER
  local folder=$1 flags minor package
  command -v go >/dev/null 2>&1 || fail "the charts are rendered and tested with Helm, and there is no Go to build it" \
    "with: install Go $(awk '$1 == "go" { print $2; exit }' go.mod) or later (https://go.dev/dl)"
  printf 'helm: building %s into %s; this takes a minute, once\n' "$version" "$cache/$name" >&2
  flags="-s -w -X helm.sh/helm/v3/internal/version.version=$version"
  # The Kubernetes that it knows, which is that of its client: v0.35.1 is of Kubernetes 1.35.
  IFS=. read -r _ minor _ <<<"$client"
  for package in pkg/chartutil pkg/lint/rules; do
    flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$minor"
  done
  CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags "$flags" -o "$folder/helm" helm.sh/helm/v3/cmd/helm >&2
}

built_once "$cache" "$name" build
printf '%s\n' "$cache/$name/helm"
