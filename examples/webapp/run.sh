#!/usr/bin/env bash
# A database on one provider, a web application on another that reaches it by its VPN address; the
# application is published on a local port.
# usage: IMAGE=busybox.tar run.sh DATABASE_PROVIDER WEB_PROVIDER
set -euo pipefail
[ $# -eq 2 ] || { sed -n '4s/# //p' "$0" >&2; exit 2; }
: "${IMAGE:?name the payload image}" "${PORT:=8080}"

network=$(gvpn net create 192.168.20.0/24 --name webapp)
activities=()
trap '[ ${#activities[@]} -eq 0 ] || gvpn activity stop "${activities[@]}"; gvpn net rm "$network"' EXIT

# The "database": rows in files, served over HTTP to whoever is in the network.
db=$(gvpn activity start "$1" --image "$IMAGE" --net "$network=192.168.20.2" --hostname db)
activities+=("$db")
gvpn activity exec "$db" /bin/sh -c '
  mkdir -p /db; for row in apples pears plums; do echo "$row $(date +%s)" >> /db/fruit; done; httpd -p 5432 -h /db'

# The application: a CGI script that asks the database on every request.
web=$(gvpn activity start "$2" --image "$IMAGE" --net "$network=192.168.20.3" --hostname web --host db=192.168.20.2)
activities+=("$web")
gvpn activity exec "$web" /bin/sh -c '
  mkdir -p /www/cgi-bin
  printf "#!/bin/sh\necho Content-Type: text/plain\necho\nwget -q -O - http://db:5432/fruit\n" > /www/cgi-bin/fruit
  chmod 755 /www/cgi-bin/fruit; httpd -p 80 -h /www'

echo "try: curl http://127.0.0.1:$PORT/cgi-bin/fruit   (Ctrl-C ends it)"
gvpn forward "$network" "$PORT:192.168.20.3:80"
