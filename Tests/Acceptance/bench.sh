#!/usr/bin/env bash
# 64 KiB to 4 members on a local bridge and calls on loopback: nothing lost, memory under limits.memory.
# With CASTNET_PEERS set to the folder of the built peer programs, calls are compared with a raw socket's.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=10
((QUICK)) && seconds=2
memory=$((512 << 20))
cat >"$WORK/bench.yaml" <<'YAML'
node:      {interface: eth0, cluster: bench}
channels:  {bulk: {group: 239.192.9.1, port: 7600}}
policies:
  - {match: "bench", kinds: [fanout], carrier: multicast, channel: bulk}
  - {match: "**", carrier: persistent}
YAML

"$CASTNET" lab up --hosts 5 --json >/dev/null || { fail "no lab"; finish; }
pids=()
for host in h2 h3 h4 h5; do
    "$CASTNET" lab exec "$host" -- "$CASTNET" bench listen "$WORK/bench.yaml" bench --name "$host" \
        --json --log-level error >"$WORK/$host" &
    pids+=($!)
done
fanout=$("$CASTNET" lab exec h1 -- "$CASTNET" bench fanout "$WORK/bench.yaml" bench --size 65536 \
    --seconds "$seconds" --members 4 --json --log-level error)
echo "$fanout"
check_json "fanout to 4 members, nothing lost" "$fanout" '.members == 4 and .lost == 0 and .sent > 0'
check_json "memory of every process under the limit" "$fanout" ".rss_max_bytes < $memory"
kill -TERM "${pids[@]}" 2>/dev/null
wait "${pids[@]}" 2>/dev/null
"$CASTNET" lab down

"$CASTNET" bench listen "$WORK/bench.yaml" bench --interface lo --listen 127.0.0.1:0 --name far --json \
    --log-level error >"$WORK/far" &
far=$!
for inflight in 1 64; do
    call=$("$CASTNET" bench call "$WORK/bench.yaml" bench --interface lo --listen 127.0.0.1:0 --size 64 \
        --seconds "$seconds" --in-flight "$inflight" --json --log-level error)
    echo "$call"
    check_json "calls, $inflight in flight, over one connection" "$call" \
        '.calls > 0 and .connections_opened <= 1'
    check_json "memory of the caller, $inflight in flight" "$call" ".rss_max_bytes < $memory"
    ((inflight == 1)) && p50=$(jq .latency_s.p50 <<<"$call")
done
kill -TERM "$far" 2>/dev/null
wait "$far" 2>/dev/null

if [ -n "${CASTNET_PEERS:-}" ] && [ -x "$CASTNET_PEERS/rr" ]; then
    "$CASTNET_PEERS/rr" tcp server --port 5599 --size 64 >/dev/null 2>&1 &
    raw=$!
    result=$("$CASTNET_PEERS/rr" tcp client --port 5599 --size 64 --secs "$seconds" --inflight 1)
    kill "$raw" 2>/dev/null
    echo "peer: $result"
    emit_json call_p50_s="$p50" raw="$result"
else
    skip "ratio to the peers: CASTNET_PEERS is not set"
fi
finish
