#!/usr/bin/env bash
# Nodes that know each other from a Redis store only: a call is answered within a second of `serve`; the store
# is killed under calls and comes back empty, which costs none of them; while it is away nobody is forgotten;
# a server that starts later is found, one that is killed is gone in time, one that stops at once.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=24 away=6 rounds=10
((QUICK)) && seconds=14 away=4 rounds=3
ttl=3
port=6399
ip link set lo up 2>/dev/null
cat >"$WORK/redis.yaml" <<YAML
node:      {listen: "127.0.0.1:0", interface: lo, cluster: redis}
directory: {beacon: off, redis: {url: "redis://127.0.0.1:$port/1", ttl: ${ttl}s}}
policies:  [{match: "**", carrier: persistent}]
YAML
if ! command -v redis-server >/dev/null; then
    skip "all: no redis-server"
    finish
fi
store() {
    redis-server --port $port --bind 127.0.0.1 --save '' --appendonly no --dir "$WORK" \
        >"$WORK/store.log" 2>&1 &
    store=$!
}
ask() { redis-cli -p $port -n 1 "$@" 2>/dev/null; }
keys() { ask EXISTS "castnet:redis:node:$1"; }
now() { date +%s.%N; }
since() { jq -n "$(now) - $1"; }

# serve NAME [TOPIC]: a server, once it is ready; its process is `server`.
serve() {
    : >"$WORK/$1"
    "$CASTNET" serve "$WORK/redis.yaml" "${2:-work}" --name "$1" --json --log-level warning \
        --set "admin.listen=unix:$WORK/$1.admin" >"$WORK/$1" 2>"$WORK/$1.log" &
    server=$!
    eventually 20 "grep -q '\"ready\"' $WORK/$1" || fail "$1 is not ready"
}
send() { timeout 60 "$CASTNET" send "$WORK/redis.yaml" "${2:-work}" --kind call --name "$1" --json "${@:3}"; }
members() { "$CASTNET" members --admin "unix:$WORK/$1.admin" --json; }
state() { members "$1" | jq -r "select(.node == \"$2\").state"; }
ended() {
    kill -TERM "$@" 2>/dev/null
    wait "$@" 2>/dev/null
}

store
eventually 20 '[ "$(ask PING)" = PONG ]' || { fail "no store"; finish; }

# From `ready` to the end of a command that starts a node, finds the server, calls it and stops.
first=()
for ((round = 1; round <= rounds; round++)); do
    serve "first$round" "topic$round"
    at=$(now)
    send "client$round" "topic$round" --count 1 --log-level error >"$WORK/out" || fail "call $round"
    first+=("$(since "$at")")
    ended $server
done
first_s=$(jq -s max <<<"${first[*]}")

serve a
a=$server
serve b
b=$server
send caller work --members 2 --rate 200 --count $((200 * seconds)) --log-level warning \
    >"$WORK/calls" 2>"$WORK/calls.log" &
caller=$!
sleep 2
kill -KILL $store
wait $store 2>/dev/null
sleep "$away"
kept=$(state a b)
source=$(members a | jq -r 'select(.node == "b").source')
store
at=$(now)
eventually 20 '[ "$(keys a)$(keys b)$(keys caller)" = 111 ]' || fail "not all are registered again"
back_s=$(since "$at")
serve late
at=$(now)
eventually 20 '[ "$(state a late)" = alive ]' || fail "the late one is not found"
found_s=$(since "$at")
# A crash shows when the record has expired, the end of a node at once. What the killed one had in hand is
# lost, and no outage of the store: the calls have ended before.
wait $caller
kill -KILL $server
wait $server 2>/dev/null
at=$(now)
eventually 20 '[ "$(state a late)" = left ]' || fail "the killed one is not gone"
gone_s=$(since "$at")
kill -TERM $b
at=$(now)
eventually 20 '[ "$(state a b)" = left ]' || fail "the one that stopped is not gone"
left_s=$(since "$at")
wait $b 2>/dev/null
warnings=$(grep -c 'known nodes are kept' "$WORK/a.log")
ended $a
left_keys=$(ask DBSIZE)
kill -KILL $store
wait $store 2>/dev/null

# Without the store a node starts, and ends, all the same.
at=$(now)
serve alone
ended $server
alone_s=$(since "$at")

line=$(jq -cn --slurpfile calls <(jq -c 'select(.event == "summary")' "$WORK/calls") \
    --argjson first "$first_s" --argjson back "$back_s" --argjson found "$found_s" --argjson gone "$gone_s" \
    --argjson left "$left_s" --argjson alone "$alone_s" --argjson ttl $ttl --argjson away "$away" \
    --arg kept "$kept" --arg source "$source" --argjson warnings "${warnings:-0}" \
    --argjson keys "${left_keys:-null}" '
    {first_call_s: $first, calls: $calls[0].sent, failed: $calls[0].failed,
     by_outcome: $calls[0].by_outcome, slowest_s: $calls[0].latency_s.max, store_away_s: $away, kept: $kept,
     registered_again_s: $back, found_s: $found, ttl_s: $ttl, killed_gone_s: $gone, stopped_gone_s: $left,
     source: $source, warnings: $warnings, keys_left: $keys, start_and_stop_without_s: $alone}')
echo "$line"
check_json "a call is answered within a second of serve" "$line" '.first_call_s <= 1'
check_json "no call fails while the store is killed and comes back" "$line" \
    ".failed == 0 and .calls == $((200 * seconds))"
check_json "nobody is forgotten while it is away, which is told once" "$line" \
    '.kept == "alive" and .warnings == 1'
check_json "all are registered again within 7 s" "$line" '.registered_again_s <= 7'
check_json "a newcomer is found within a second" "$line" '.found_s <= 1'
check_json "a killed node is gone within 1.5 times its time to live" "$line" \
    '.killed_gone_s <= 1.5 * .ttl_s + 0.5'
check_json "one that stops is gone at once" "$line" '.stopped_gone_s <= 1'
check_json "members names the source" "$line" '.source == "redis"'
check_json "nothing is left in the store" "$line" '.keys_left == 0'
check_json "a node starts and stops without it" "$line" '.start_and_stop_without_s <= 5'
finish
