#!/usr/bin/env bash
# Twelve members on four hosts while one is killed, one is stopped for four seconds, one host is cut off for
# two and another loses a tenth of its datagrams: every row of every receipt that says a member has received
# or processed a message is true, and no member that was there is without a row.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=20
((QUICK)) && seconds=8
rate=50
cat >"$WORK/receipts.yaml" <<'YAML'
node:      {interface: eth0, cluster: receipts}
channels:  {group: {group: 239.192.9.8, port: 7670}}
policies:
  - {match: "receipts.**", kinds: [fanout], carrier: multicast, channel: group, fallback: none}
  - {match: "**", carrier: persistent}
YAML

"$CASTNET" lab up --hosts 5 --offload on --json >/dev/null || { fail "no lab"; finish; }
pids=()
# Subscribers and servers in turn; the servers work 2 ms on each message.
for number in $(seq 12); do
    what=(--join 'receipts.**')
    ((number % 2)) && what=(receipts.received receipts.processed --work 2ms --reply none)
    start "h$((2 + number % 4))" "m$number" "$CASTNET" serve "$WORK/receipts.yaml" "${what[@]}" \
        --name "m$number" --json --log-level error
done
for number in $(seq 12); do
    eventually 20 "grep -q '\"ready\"' $WORK/m$number" || fail "m$number is not ready"
done
pid_of() { jq -r 'select(.event == "ready").pid' "$WORK/$1" | head -n 1; }

senders=()
for kind in received processed; do
    timeout --kill-after=5 100 "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/receipts.yaml" \
        "receipts.$kind" --kind fanout --name "sender-$kind" --size 300 --count $((rate * seconds)) \
        --rate $rate --in-flight 1000 --receipt $kind --deadline 5s --members 12 --json --log-level error \
        >"$WORK/sent-$kind" 2>"$WORK/sent-$kind.log" &
    senders+=($!)
done
eventually 20 "grep -q receipts.processed $WORK/m1" || fail "nothing is sent"
"$CASTNET" lab fault h5 drop 10% udp in >/dev/null || fail "drop at h5"
sleep $((seconds / 8))
kill -KILL "$(pid_of m1)"
kill -STOP "$(pid_of m2)"
sleep 1
"$CASTNET" lab fault h3 blackout --for 2s >/dev/null || fail "blackout at h3"
sleep 3
kill -CONT "$(pid_of m2)"
wait "${senders[@]}"
sleep 1
stop "${pids[@]}"

# Only what a member printed is certain; the one that was killed may have had more in its memory.
for number in $(seq 12); do
    jq -r --arg node "m$number" 'select(.event == "message") | "\($node) \(.id)"' "$WORK/m$number" 2>/dev/null
done | sort -u >"$WORK/had"
delivered='.outcome | IN("local", "multicast", "repaired", "unicast")'
for kind in received processed; do
    rows=$(jq -c 'select(.event == "receipt")' "$WORK/sent-$kind")
    jq -r ".members[] | select($delivered) | \"\(.node) \(.id)\"" <<<"$(jq -c \
        '.id as $id | .members |= map(.id = $id)' <<<"$rows")" | sort -u >"$WORK/said-$kind"
    false_rows=$(comm -23 "$WORK/said-$kind" "$WORK/had")
    [ $kind = received ] && false_rows=$(grep -v '^m1 ' <<<"$false_rows")
    line=$(jq -cs --arg kind "$kind" --argjson false "$(grep -c . <<<"$false_rows")" '{kind: $kind,
        receipts: length, rows: (map(.members | length) | add), false: $false,
        outcomes: ([.[].members[].outcome] | group_by(.) | map({key: .[0], value: length}) | from_entries),
        missing: [.[] | [.members[].node] as $had
            | ("m4", "m6", "m8", "m10", "m12") | select(IN($had[]) | not)] | length}' <<<"$rows")
    echo "$line"
    check_json "$kind: a receipt for every message" "$line" ".receipts == $((rate * seconds))"
    check_json "$kind: no row says what is not so" "$line" '.false == 0'
    check_json "$kind: every member that was there has its row" "$line" '.missing == 0'
    check_json "$kind: most rows say that it arrived" "$line" '.outcomes.multicast > .rows / 2'
done
finish
