#!/usr/bin/env bash
# Two payloads with sshd; the ssh client of this machine logs in through the gate.
# usage: IMAGE=ssh.tar KEY=~/.ssh/id_ed25519 run.sh PROVIDER PROVIDER
set -euo pipefail
[ $# -eq 2 ] || { sed -n '3s/# //p' "$0" >&2; exit 2; }
: "${IMAGE:?name the payload image}" "${KEY:?name the private key that the image lets in}"

network=$(gvpn net create 192.168.0.0/24)
activities=()
trap '[ ${#activities[@]} -eq 0 ] || gvpn activity stop "${activities[@]}"; gvpn net rm "$network"' EXIT

host=2
for provider in "$@"; do
  ip=192.168.0.$host
  activity=$(gvpn activity start "$provider" --image "$IMAGE" --net "$network=$ip" --hostname "node-$host")
  activities+=("$activity")
  gvpn activity exec "$activity" /usr/sbin/sshd
  host=$((host + 1))
done

echo "log in with: gvpn ssh $network root@192.168.0.2 -- -i $KEY"
echo "or with plain ssh: ssh -o ProxyCommand='gvpn connect $network %h %p' -i $KEY root@192.168.0.3"
gvpn ssh "$network" root@192.168.0.2 -- -i "$KEY"
