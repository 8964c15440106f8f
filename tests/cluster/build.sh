#!/usr/bin/env bash
# Prints the folder with the programs of the test API server, of the test node, or of those that tests put into pods of
# any cluster; builds them into the user's cache first, if need be.
#
# usage: tests/cluster/build.sh [--node | --pods]
#
# With KUBEBUILDER_ASSETS, the API server's are in that folder. Else what is here is built, once for each state of these
# files: minutes the first time, nothing later. Several callers at once wait for the one that builds.
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf 'test cluster: %s\n' "$*" >&2; exit 1; }

case ${1:-} in
  '')
    kind=api
    programs=(etcd kube-apiserver kube-controller-manager kubectl)
    ;;
  --node)
    kind=node
    programs=(kube-scheduler kubelet kube-proxy pause probe enforcer names)
    # Programs of others; cni.go pins them.
    plugins=(ipam/host-local main/loopback main/ptp)
    ;;
  --pods)
    kind=pods
    programs=(probe gitserver)
    ;;
  *) fail "usage: tests/cluster/build.sh [--node | --pods]" ;;
esac

if [[ $kind == api && -n ${KUBEBUILDER_ASSETS:-} ]]; then
  for program in etcd kube-apiserver kubectl; do
    [[ -x $KUBEBUILDER_ASSETS/$program ]] || fail "KUBEBUILDER_ASSETS is $KUBEBUILDER_ASSETS, which has no program $program"
  done
  printf '%s\n' "$KUBEBUILDER_ASSETS"
  exit 0
fi

version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' go.mod)
sources=(build.sh go.mod go.sum)
for program in "${programs[@]}"; do
  sources+=("cmd/$program"/*.go)
done
state=$(cat "${sources[@]}" | sha256sum | cut -c 1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ostler/cluster
assets=$cache/$version-$kind-$state

compile() { # compile FOLDER PACKAGE...
  local folder=$1 major minor flags="-s -w" package
  IFS=. read -r major minor _ <<<"${version#v}"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
  done
  mkdir -p "$folder"
  CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags "$flags" -o "$folder/" "${@:2}" >&2
}

if [[ ! -d $assets ]]; then
  command -v go >/dev/null 2>&1 || fail "the tests need a Kubernetes $kind, and there is no Go to build it with:" \
    "install Go $(awk '$1 == "go" { print $2; exit }' go.mod) or later (https://go.dev/dl)" \
    "$([[ $kind != api ]] || echo "or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl")"
  mkdir -p "$cache"
  exec {lock}>"$cache/.lock"
  flock "$lock"
fi

# Looked at again, as another caller may have built it while this one waited.
if [[ ! -d $assets ]]; then
  printf 'test cluster: building Kubernetes %s into %s; this takes minutes, once\n' "$version" "$assets" >&2
  # What an interrupted build left; nobody else is building, as the lock is ours.
  rm -rf -- "$cache"/new.*
  new=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf -- "$new"' EXIT
  compile "$new" "${programs[@]/#/./cmd/}"
  if [[ $kind == node ]]; then
    compile "$new/cni" "${plugins[@]/#/github.com/containernetworking/plugins/plugins/}"
  fi
  chmod 755 "$new"
  mv -T -- "$new" "$assets"
fi
printf '%s\n' "$assets"
