#!/usr/bin/env bash
# Eight members on four hosts. A thousand messages a second of 1 KiB while 5 % of the datagrams are lost at
# every member's host: all arrive, 99 of 100 within 250 ms. A megabyte fifty times a second for a minute: all
# arrive in time, and no process has more memory than limits.memory and 32 MiB.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

paced=20 large=60
((QUICK)) && paced=5 large=5
memory=$((512 << 20))
cat >"$WORK/paced.yaml" <<YAML
node:      {interface: eth0, cluster: paced}
channels:  {bulk: {group: 239.192.9.6, port: 7650}}
policies:
  - {match: "paced", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
limits:    {memory: 512MiB}
YAML

pids=()
# listen: eight members, two on each of four hosts.
listen() {
    local number
    for number in 1 2 3 4 5 6 7 8; do
        start "h$((2 + (number - 1) % 4))" "m$number" "$CASTNET" bench listen "$WORK/paced.yaml" paced \
            --name "m$number" --json --log-level error
    done
}
# fan_out SIZE RATE SECONDS
fan_out() {
    on_long "$3" "$CASTNET" bench fanout "$WORK/paced.yaml" paced --name sender --size "$1" --rate "$2" \
        --seconds "$3" --members 8 --json --log-level error
}
on_long() { timeout --kill-after=5 $((60 + $1)) "$CASTNET" lab exec h1 -- "${@:2}"; }

"$CASTNET" lab up --hosts 5 --offload off --json >/dev/null || { fail "no lab"; finish; }
listen
result=$(fan_out 1KiB 1000 1)
check_json "eight members hear the group" "$result" '.members == 8 and .lost == 0'

for host in h2 h3 h4 h5; do
    "$CASTNET" lab fault "$host" drop 5% udp in >/dev/null || fail "loss at $host"
done
result=$(fan_out 1KiB 1000 "$paced")
echo "$result" | jq -c '. + {case: "5 % loss, 1,000 a second of 1 KiB"}'
check_json "5 % loss: everything, p99 within 250 ms" "$result" \
    ".lost == 0 and .sent >= 950 * $paced and .latency_s.p99 <= 0.25"

# megabytes CASE OFFLOAD SECONDS: on links without loss, in $result. A listener lives for two minutes at most.
megabytes() {
    stop "${pids[@]}"
    pids=()
    "$CASTNET" lab down
    "$CASTNET" lab up --hosts 5 --offload "$2" --json >/dev/null || { fail "no lab"; finish; }
    listen
    result=$(fan_out 1MB 50 "$3")
    echo "$result" | jq -c --arg case "$1" '. + {case: $case}'
}
if ! ((QUICK)); then
    # Eight times 50 MB packet by packet is about all that two processors do: how much of it is a figure.
    megabytes "1 MB fifty times a second, no link cuts or joins packets" off 20
    check_json "1 MB without offloads: nothing lost" "$result" '.lost == 0 and .members == 8'
fi
megabytes "1 MB fifty times a second" on "$large"
check_json "1 MB fifty times a second: everything, in time" "$result" \
    ".lost == 0 and .sent >= 49 * $large and .seconds <= $large + 2"
check_json "within limits.memory and 32 MiB" "$result" ".rss_max_bytes <= $memory + 33554432"
stop "${pids[@]}"
finish
