#!/usr/bin/env bash
# Runs a real session on a demo config repository and shows what came of it.
#
# usage: scripts/demo.sh [--clean]
#
# Everything lives in one folder: OSTLER_DEMO_DIR, else ostler-demo in the user's state folder. A second call goes on
# with the same folder and must change nothing: a run happens once. --clean removes the folder.
# OSTLER names the program to use; without it, it is built.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=${OSTLER_DEMO_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/ostler-demo}
run=2026-11-21-fix-login
code_branch=ostler/default/$run
ledger_branch=ostler/results
marker=.ostler-demo

say() { printf '%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# Commits of the demo's own two repositories; the user's Git settings do not count.
as_demo() {
  env GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME="demo" GIT_AUTHOR_EMAIL="demo@localhost" \
    GIT_COMMITTER_NAME="demo" GIT_COMMITTER_EMAIL="demo@localhost" git "$@"
}

# Only a folder that this script made is ever removed.
if [[ ${1:-} == --clean ]]; then
  if [[ -e $demo/$marker ]]; then
    rm -rf -- "$demo"
  fi
  exit 0
fi

if [[ -n ${OSTLER:-} ]]; then
  ostler=$OSTLER
else
  say "building ostler"
  cargo build --locked --quiet
  ostler=${CARGO_TARGET_DIR:-target}/debug/ostler
fi
[[ -x $ostler ]] || fail "$ostler is not a program"

if [[ -e $demo && ! -e $demo/$marker ]]; then
  fail "$demo exists and is not the demo's; set OSTLER_DEMO_DIR to another folder"
fi
mkdir -p "$demo"
demo=$(cd "$demo" && pwd)
touch "$demo/$marker"
key=$demo/signing-key
signers=$demo/allowed-signers

# The two repositories are made under another name and moved, so that an interrupted call leaves none half made.
if [[ ! -d $demo/code ]]; then
  rm -rf -- "$demo/code.new"
  cp -R examples/code-project "$demo/code.new"
  as_demo -C "$demo/code.new" init --quiet -b main
  as_demo -C "$demo/code.new" add -A
  as_demo -C "$demo/code.new" commit --quiet -m "A login script and its tests"
  mv "$demo/code.new" "$demo/code"
fi
if [[ ! -d $demo/config ]]; then
  rm -rf -- "$demo/config.new"
  cp -R examples/repo-layout "$demo/config.new"
  session=$demo/config.new/teams/payments/session.yaml
  sed "s|^    url: .*|    url: \"file://$demo/code\"|" "$session" >"$session.new"
  mv "$session.new" "$session"
  as_demo -C "$demo/config.new" init --quiet -b main
  as_demo -C "$demo/config.new" add -A
  as_demo -C "$demo/config.new" commit --quiet -m "Ask for the login test to be fixed"
  mv "$demo/config.new" "$demo/config"
fi
if [[ ! -f $key ]]; then
  ssh-keygen -q -t ed25519 -N "" -C "ostler demo" -f "$key"
fi
printf 'ostler@localhost namespaces="git" %s\n' "$(cut -d ' ' -f 1,2 "$key.pub")" >"$signers"

tip_of() { git -C "$1" rev-parse --quiet --verify "refs/heads/$2" || true; }
ledger_before=$(tip_of "$demo/config" "$ledger_branch")
code_before=$(tip_of "$demo/code" "$code_branch")

say "config repository  $demo/config"
say "code repository    $demo/code"
say "state              $demo/state"
say ""
"$ostler" up "$demo/config" --state "$demo/state" --signing-key "$key" --until-idle --timeout 120s

ledger=$(tip_of "$demo/config" "$ledger_branch")
code=$(tip_of "$demo/code" "$code_branch")
[[ -n $ledger ]] || fail "there is no branch $ledger_branch in $demo/config"
[[ -n $code ]] || fail "there is no branch $code_branch in $demo/code"

results=$(git -C "$demo/config" ls-tree -r --name-only "$ledger" | grep "/$run/result\.yaml\$") ||
  fail "the ledger has no result of run $run"
starts=$(git -C "$demo/code" show "$code:STARTS" | wc -l)
[[ $starts -eq 1 ]] || fail "the agent started $starts times"
if [[ -n $ledger_before ]]; then
  [[ $ledger == "$ledger_before" ]] || fail "the ledger moved from $ledger_before to $ledger without a new commit"
  [[ $code == "$code_before" ]] || fail "the code branch moved from $code_before to $code without a new commit"
fi

# The commit that last touched the result is the one that proves it.
commit=$(git -C "$demo/config" log -1 --format=%H "$ledger" -- "$results")
say ""
say "result commit      $commit"
say "  git -C $demo/config show $commit"
say "code branch        $code_branch, $code"
say "  git -C $demo/code show $code_branch"
say "allowed signers    $signers"
say "  git -C $demo/config -c gpg.ssh.allowedSignersFile=$signers verify-commit $commit"
git -C "$demo/config" -c "gpg.ssh.allowedSignersFile=$signers" verify-commit "$commit"
say "every entry        $ostler verify results $demo/config --signers $signers"
if [[ -n $ledger_before ]]; then
  say ""
  say "nothing new: the run was recorded before, so it did not start again ($demo has its one start)"
fi
