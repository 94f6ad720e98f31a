#!/usr/bin/env bash
# Web servers on N providers; requests to one local port are spread over them through the gate.
# usage: IMAGE=web.tar run.sh PROVIDER...
set -euo pipefail
[ $# -gt 0 ] || { sed -n '3s/# //p' "$0" >&2; exit 2; }
: "${IMAGE:?name the payload image}" "${PORT:=8080}"

network=$(gvpn net create 192.168.10.0/24)
activities=()
trap 'kill $(jobs -p) 2>/dev/null || true
      [ ${#activities[@]} -eq 0 ] || gvpn activity stop "${activities[@]}"
      gvpn net rm "$network"' EXIT

host=2
rules=()
for provider in "$@"; do
  ip=192.168.10.$host
  activity=$(gvpn activity start "$provider" --image "$IMAGE" --net "$network=$ip" --hostname "web-$host")
  activities+=("$activity")
  gvpn activity exec "$activity" /bin/sh -c 'mkdir -p /www; echo "hello from $(hostname)" > /www/index.html; httpd -p 80 -h /www'
  rules+=("$((PORT + host)):$ip:80")
  host=$((host + 1))
done

# One forwarded port for each server, and a small HTTP server of this machine that takes them in turn.
gvpn forward "$network" "${rules[@]}" &
python3 "$(dirname "$0")/spread.py" "$PORT" "${rules[@]%%:*}" &
echo "try: curl http://127.0.0.1:$PORT/   (Ctrl-C ends it)"
wait
