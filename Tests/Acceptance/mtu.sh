#!/usr/bin/env bash
# Jumbo and narrow frames: a network of 9,000 bytes, one of 1,280, and one where a single member is narrower
# than the others. Frames fit everybody, and everything arrives by multicast.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

count=200
((QUICK)) && count=60
cat >"$WORK/mtu.yaml" <<'YAML'
node:      {interface: eth0, cluster: mtu}
channels:  {bulk: {group: 239.192.9.5, port: 7640}}
policies:
  - {match: "mtu", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
YAML

# network MTU NARROW PACKETS: sends 64 KiB messages to two members; h3 has the MTU NARROW. A message takes at
# least PACKETS packets, and at most a tenth more.
network() {
    local name="MTU $1, one member $2" pids=() host packets result
    "$CASTNET" lab up --hosts 3 --mtu "$1" --json >/dev/null || { fail "no lab"; return; }
    [ "$1" = "$2" ] || "$CASTNET" lab fault h3 mtu "$2" >/dev/null
    for host in h2 h3; do
        "$CASTNET" lab exec "$host" -- "$CASTNET" serve "$WORK/mtu.yaml" mtu --join --name "$host" --json \
            --log-level error >"$WORK/$host.out" 2>"$WORK/$host.err" &
        pids+=($!)
    done
    "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/mtu.yaml" mtu --kind fanout --name sender \
        --size 65536 --count "$count" --members 2 --members-timeout 20s --receipt received --stay 1s --json \
        --log-level error >"$WORK/sender.out" 2>"$WORK/sender.err"
    kill -TERM "${pids[@]}" 2>/dev/null
    wait "${pids[@]}"
    packets=$(jq -s --argjson count "$count" '.[-1].counters["pgm.out.data"] / $count' "$WORK/sender.out")
    result=$(cat "$WORK/h2.out" "$WORK/h3.out" | jq -cs --arg name "$name" --argjson packets "$packets" '
        map(select(.event == "summary"))
        | {name: $name, packets_per_message: $packets, messages: map(.messages), losses: map(.losses),
           by_carrier: map(.by_carrier.multicast), rejected: map(.counters["pgm.rejected.length"] // 0)}')
    echo "$result"
    check_json "$name: everything arrives by multicast in frames that fit" "$result" \
        ".messages == [$count, $count] and .by_carrier == [$count, $count] and .losses == [0, 0]
         and .rejected == [0, 0] and .packets_per_message >= $3 and .packets_per_message < $3 * 1.1 + 1"
    "$CASTNET" lab down
}

network 9000 9000 7.3
network 1280 1280 53
network 9000 1280 53
network 1500 1400 48
finish
