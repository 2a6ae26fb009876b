#!/usr/bin/env bash
# One connection and many: a persistent topic against a connection a message; a Unix-domain socket against TCP
# on one host, in turns; two hosts never share a Unix-domain socket; forty processes have as many connections
# as pairs of them talk.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

rounds=5 seconds=3 servers=20 clients=20 calls=200
((QUICK)) && rounds=3 seconds=1 calls=60
for name in kept fresh; do
    rule='{match: "**", carrier: persistent}'
    [ $name = fresh ] && rule='{match: "**", carrier: ephemeral, linger: 0s, share: false}'
    cat >"$WORK/$name.yaml" <<YAML
node:      {interface: eth0, cluster: $name}
policies:  [$rule]
admin:     {listen: "unix:$WORK/\${NAME}.admin"}
YAML
done
"$CASTNET" lab up --hosts 2 --json >/dev/null || { fail "no lab"; finish; }

# bench CONFIG NODE.UNIX LISTENER_HOST IN_FLIGHT SIZE: calls a second, from a node of host 1.
bench() {
    local pids=()
    export NAME=bench-$RANDOM
    NAME=$NAME-listen start "$3" listen "$CASTNET" bench listen "$WORK/$1.yaml" bench --name listener \
        --set "node.unix=$2" --json --log-level error
    NAME=$NAME-call on h1 "$CASTNET" bench call "$WORK/$1.yaml" bench --size "$5" --in-flight "$4" \
        --seconds "$seconds" --set "node.unix=$2" --json --log-level error
    stop "${pids[@]}"
}

for ((round = 1; round <= rounds; round++)); do
    bench kept off h2 64 64 >>"$WORK/kept"
    bench fresh off h2 64 64 >>"$WORK/fresh"
done
# One small call after the other, large ones, and many small ones at a time.
loads=("1 64" "8 65536" "64 64")
((QUICK)) && loads=("1 64")
for load in "${loads[@]}"; do
    for ((round = 1; round <= rounds; round++)); do
        # shellcheck disable=SC2086
        { bench kept auto h1 $load; bench kept off h1 $load; } | jq -cs --arg load "$load" '
            {load: $load, unix: .[0].calls_per_s, tcp: .[1].calls_per_s}' >>"$WORK/pairs"
    done
done
line=$(jq -cn --slurpfile kept "$WORK/kept" --slurpfile fresh "$WORK/fresh" --slurpfile pairs "$WORK/pairs" '
    def median: sort | .[length / 2 | floor];
    def rate: map(.calls_per_s) | median | floor;
    {persistent_per_s: ($kept | rate), a_connection_each_per_s: ($fresh | rate),
     connections: ($kept | map(.connections_opened) | max),
     same_host: ($pairs | group_by(.load) | map({in_flight_and_size: .[0].load,
        unix_per_s: (map(.unix) | median | floor), tcp_per_s: (map(.tcp) | median | floor),
        ratio: (map(.unix / .tcp) | median)}))}
    | .ratio = .persistent_per_s / .a_connection_each_per_s')
echo "$line"
check_json "one connection, five times the calls of a connection each" "$line" \
    '.ratio >= 5 and .connections == 1'
# With many small calls at a time both wait for the processes, not for the socket: that is printed only.
check_json "a Unix-domain socket is faster than TCP" "$line" '
    .same_host | all(.in_flight_and_size == "64 64" or .ratio > 1)'

# Who talks to whom over what, as the nodes' admin pages say.
pids=()
NAME=far start h2 far "$CASTNET" serve "$WORK/kept.yaml" far --name far --json --log-level error
NAME=near start h1 near "$CASTNET" serve "$WORK/kept.yaml" near --name near --json --log-level error
for topic in far near; do
    NAME=to-$topic start h1 "to-$topic" "$CASTNET" send "$WORK/kept.yaml" "$topic" --kind call --count 20 \
        --stay 4s --name "to-$topic" --json --log-level error
done
eventually 20 "grep -q ready $WORK/far && grep -q ready $WORK/near" || fail "the servers are not up"
eventually 20 "[ -S $WORK/to-far.admin ] && [ -S $WORK/to-near.admin ]" || fail "the callers are not up"
sleep 1.5
for name in to-far to-near; do
    "$CASTNET" status --admin "unix:$WORK/$name.admin" --json |
        jq -c '{node, addresses: [.links[] | select(.dialled) | .address]}'
done >"$WORK/status"
stop "${pids[@]}"
line=$(jq -cs . "$WORK/status")
echo "$line"
check_json "two hosts use TCP, two nodes of one host a Unix-domain socket" "$line" \
    'length == 2 and (.[0].addresses | length == 1 and .[0] != "unix") and .[1].addresses == ["unix"]'

# Forty processes.
pids=()
for number in $(seq "$servers"); do
    NAME=s$number start h$((1 + number % 2)) "server.$number" "$CASTNET" serve "$WORK/kept.yaml" pool \
        --name "s$number" --json --log-level error
done
serving=("${pids[@]}")
eventually 30 "[ \$(grep -l ready $WORK/server.* 2>/dev/null | grep -vc log) = $servers ]" ||
    fail "not all servers are up"
pids=()
for number in $(seq "$clients"); do
    NAME=c$number start h$((1 + number % 2)) "client.$number" "$CASTNET" send "$WORK/kept.yaml" pool \
        --kind call --count "$calls" --in-flight 4 --members "$servers" --size 64 --name "c$number" \
        --stay 2s --json --log-level error
done
wait "${pids[@]}"
stop "${serving[@]}"
line=$(cat $(ls "$WORK"/server.* "$WORK"/client.* | grep -v 'log$') | jq -cs --argjson calls "$calls" '
    [.[] | select(.event == "summary")] as $ends
    | [$ends[] | select(has("connections_opened"))] as $clients
    | [$ends[] | select(has("connections_accepted"))] as $servers
    | {clients: ($clients | length), servers: ($servers | length),
       accepted_calls: ($clients | map(.accepted) | add), opened: ($clients | map(.connections_opened) | add),
       accepted: ($servers | map(.connections_accepted) | add)}
    | .pairs = .clients * .servers')
echo "$line"
check_json "as many connections as pairs that talk" "$line" \
    ".clients == $clients and .servers == $servers and .opened == .pairs and .accepted == .pairs
        and .accepted_calls == $((clients * calls))"
"$CASTNET" lab down
finish
