#!/usr/bin/env bash
# Starts the example's backends, Pilotfish and a stock Envoy as gateway, all on loopback, and shows the 90/10 split.
#   run.sh           show the split, then stop
#   run.sh --stay    keep running until Ctrl-C: edit mesh/gateway.yaml and curl http://books.example:8088/reviews
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
work=$(mktemp -d)
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

cargo build --quiet --release --package pilotfish
cargo xtask setup --envoy-only
pilotfish=target/release/pilotfish
envoy=$(cargo xtask envoy-path)

i=0
for name in productpage-v1 details-v1 reviews-v1 reviews-v2 ratings-v1; do
  python3 "$here/backend.py" "$name" "127.0.0.$((21 + i))" 9080 & pids+=($!)
  i=$((i + 1))
done

"$pilotfish" serve --config-dir "$here/mesh" --http-addr 127.0.0.1:8080 --grpc-addr 127.0.0.1:15010 \
  --monitoring-addr 127.0.0.1:15014 --log warn & pids+=($!)
"$pilotfish" bootstrap --id gateway --cluster ingressgateway --output "$work/envoy.json"
"$envoy" -c "$work/envoy.json" --concurrency 1 --use-dynamic-base-id -l error & pids+=($!)

get() { curl -s -o "$work/body" -w '%{http_code}' --resolve books.example:8088:127.0.0.1 "$@" && cat "$work/body"; }
for try in $(seq 100); do
  [ "$(get http://books.example:8088/details 2>/dev/null | head -c 3)" = 200 ] && break
  [ "$try" = 100 ] && { echo "the gateway did not come up" >&2; exit 1; }
  sleep 0.1
done

echo "500 requests to /reviews:"
for _ in $(seq 500); do get http://books.example:8088/reviews; echo; done | grep -o 'reviews-v[12]' | sort | uniq -c
echo "ratings for a reader:   $(get -H 'end-user: bob' http://books.example:8088/ratings | head -c 3)"
echo "ratings for ada:        $(get -H 'end-user: ada' http://books.example:8088/ratings | head -c 3)"
if [ "${1:-}" = --stay ]; then
  echo "Running. Edit $here/mesh/gateway.yaml; ask http://127.0.0.1:8080/debug/syncz. Ctrl-C ends it."
  wait "${pids[-1]}"
fi
