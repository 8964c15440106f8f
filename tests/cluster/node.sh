#!/usr/bin/env bash
# Runs the programs of one test node, as keep.sh does, in namespaces of their own: process ids, mounts and network.
# When its standard input ends, so does everything that runs there, and nothing is left on the machine.
#
# usage: tests/cluster/node.sh FOLDER
#
# Orders and answers are those of keep.sh. Before the first answer, FOLDER/network holds one line: the number N of the
# node, 0 to 255. Nodes of other numbers may run beside it. From N come
#   10.214.N.1 and .3   the machine, as pods see it
#   10.214.N.2          the node, with the API server
#   10.215.N.0/24       pods; the machine reaches them directly
#   /ostler-node-N      the cgroup of everything in it
set -euo pipefail
self=$(readlink -f "$0")

fail() { printf 'test node: %s\n' "$*" >&2; exit 1; }

# The folder of a cgroup in each hierarchy; with cgroup v2 there is one.
cgroups() { # cgroups NAME
  awk -v name="$1" '$3 == "cgroup2" || $3 == "cgroup" { print $2 "/" name }' /proc/mounts
}

remove_cgroups() { # remove_cgroups NAME
  local folder
  for folder in $(cgroups "$1"); do
    if [[ -d $folder ]]; then
      find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
    fi
  done
}

make_cgroups() { # make_cgroups NAME
  local folder part file controller
  for folder in $(cgroups "$1"); do
    mkdir -p "$folder/system" "$folder/kube"
    for part in "$folder" "$folder/system" "$folder/kube"; do
      # Where cpusets are the old ones, an empty set lets no process in.
      for file in cpuset.cpus cpuset.mems; do
        if [[ -e $part/$file && ! -e $part/cgroup.controllers ]]; then
          cat "$(dirname "$part")/$file" >"$part/$file"
        fi
      done
    done
    # In the new hierarchy, what a group may limit is given on from above. Not each can be, and kubelet says which it
    # misses.
    for part in "$(dirname "$folder")" "$folder"; do
      if [[ -s $part/cgroup.controllers ]]; then
        for controller in $(<"$part/cgroup.controllers"); do
          echo "+$controller" 2>/dev/null >"$part/cgroup.subtree_control" || true
        done
      fi
    done
  done
}

# The machine's end of the wire is a link of the machine, which goes with the other end.
connect() { # connect N PID-OF-ONE-ON-THE-MACHINE
  local near=ostler-node-$1 machine=(nsenter "--net=/proc/$2/ns/net")
  ip link add eth0 type veth peer name "$near" netns "$2"
  "${machine[@]}" ip address add "10.214.$1.1/28" dev "$near"
  "${machine[@]}" ip address add "10.214.$1.3/28" dev "$near"
  "${machine[@]}" ip link set "$near" up
  ip address add "10.214.$1.2/28" dev eth0
  ip link set lo up
  ip link set eth0 up
  ip route add default via "10.214.$1.1"
  "${machine[@]}" ip route add "10.215.$1.0/24" via "10.214.$1.2"
}

# Kubelet and its like have places of their own on a machine, and set what is the whole machine's: here these are ours.
furnish() { # furnish FOLDER
  local place setting name resolver
  mkdir -p /var/lib/kubelet /var/log/containers
  for place in /run /var/lib/kubelet /var/log/containers; do
    mount -t tmpfs -o mode=755 ostler-node "$place"
  done
  mkdir -p /run/netns "$1/sys"
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    name=${setting%=*}
    printf '%s\n' "${setting#*=}" >"$1/sys/${name//\//.}"
    # Kubelet finds what it wants, and leaves the machine's as it is.
    mount --bind "$1/sys/${name//\//.}" "/proc/sys/$name"
  done
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # No name is known out there, and the machine says so at once: an image that is not here is not looked for elsewhere.
  resolver=$(readlink -m /etc/resolv.conf)
  printf 'nameserver 10.214.%s.1\n' "$(cat "$1/network")" >"$1/resolv.conf"
  mkdir -p "$(dirname "$resolver")"
  [[ -e $resolver ]] || : >"$resolver"
  mount --bind "$1/resolv.conf" "$resolver"
}

case $1 in
  --connected) # --connected FOLDER N PID
    connect "$3" "$4"
    exec unshare --mount --pid --fork --kill-child=KILL --mount-proc "$self" --furnished "$2"
    ;;
  --furnished) # --furnished FOLDER
    furnish "$2"
    exec "$(dirname "$self")/keep.sh" --leave "$2"
    ;;
esac

folder=$1
[[ $(id -u) -eq 0 ]] || fail "only root can run one"
mkdir -p /run/lock
for ((n = 0; ; n++)); do
  ((n < 256)) || fail "there are 256 already"
  exec {lock}>"/run/lock/ostler-node-$n"
  # Held for as long as this runs. The address may still be taken, by the end of one or by a stranger.
  if flock -n "$lock" && [[ -z $(ip -4 route show root "10.214.$n.0/24"; ip -4 route show root "10.215.$n.0/24") ]]; then
    break
  fi
  exec {lock}>&-
done
echo "$n" >"$folder/network"

# Nothing but the end of the input ends this.
trap '' PIPE HUP INT TERM
remove_cgroups "ostler-node-$n"
make_cgroups "ostler-node-$n"
(
  exec {lock}>&-
  for group in $(cgroups "ostler-node-$n"); do
    echo "$BASHPID" >"$group/system/cgroup.procs"
  done
  exec unshare --net "$self" --connected "$folder" "$n" $$
) || true
remove_cgroups "ostler-node-$n"
rm -rf -- "$folder"
