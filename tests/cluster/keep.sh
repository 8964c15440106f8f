#!/usr/bin/env bash
# Runs the programs of one test cluster for as long as its standard input is open. When that ends, however the tests
# ended, the programs are killed and the folder is removed (with --leave, it is not).
#
# usage: tests/cluster/keep.sh [--leave] FOLDER
#
# Each line of standard input is an order, and gets a line of answer:
#   start NAME   runs the command in FOLDER/NAME.command, one argument a line; its output goes to FOLDER/NAME.log
#   stop NAME    kills it
#   alive NAME   answers yes or no
#   run NAME     runs the command in FOLDER/NAME.command to its end; answers with its exit code
set -euo pipefail
leave=
if [[ $1 == --leave ]]; then
  leave=yes
  shift
fi
folder=$1
declare -A pids=()

stop() { # stop NAME
  kill -KILL "${pids[$1]}" 2>/dev/null || true
  wait "${pids[$1]}" 2>/dev/null || true
  unset "pids[$1]"
}

alive() { # alive NAME
  local running
  running=$(jobs -pr)
  [[ -n ${pids[$1]:-} && $'\n'$running$'\n' == *$'\n'${pids[$1]}$'\n'* ]]
}

answer() { printf '%s\n' "$1" || true; }

# Nothing but the end of the input ends this: who waits for an answer may be gone already.
trap '' PIPE HUP INT TERM
while read -r order name; do
  case $order in
    start)
      mapfile -t command <"$folder/$name.command"
      # Programs must not inherit what is ignored here.
      (trap - PIPE HUP INT TERM; exec "${command[@]}") </dev/null >>"$folder/$name.log" 2>&1 &
      pids[$name]=$!
      answer started
      ;;
    stop)
      [[ -z ${pids[$name]:-} ]] || stop "$name"
      answer stopped
      ;;
    alive)
      if alive "$name"; then answer yes; else answer no; fi
      ;;
    run)
      mapfile -t command <"$folder/$name.command"
      code=0
      (trap - PIPE HUP INT TERM; exec "${command[@]}") </dev/null >>"$folder/$name.log" 2>&1 || code=$?
      answer "$code"
      ;;
    *) answer "unknown order $order" ;;
  esac
done

for name in "${!pids[@]}"; do
  stop "$name"
done
[[ $leave ]] || rm -rf -- "$folder"
