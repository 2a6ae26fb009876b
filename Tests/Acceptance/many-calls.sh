#!/usr/bin/env bash
# 100,000 calls, 256 at a time, over one persistent topic: one connection, every reply its own call's. Then
# the same while the server is killed in the middle and started again: every call ends in exactly one outcome.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

count=100000
((QUICK)) && count=10000
cat >"$WORK/calls.yaml" <<'YAML'
node:      {interface: eth0, cluster: calls}
policies:  [{match: "**", carrier: persistent}]
YAML
"$CASTNET" lab up --hosts 2 --json >/dev/null || { fail "no lab"; finish; }

serve() {
    start h2 "$1" "$CASTNET" serve "$WORK/calls.yaml" echo --name server --reply echo --json \
        --log-level error
    eventually 20 "grep -q ready $WORK/$1" || fail "$1 is not up"
}
# call OUTPUT: all calls; every payload is a function of the call's number.
call() {
    on h1 "$CASTNET" send "$WORK/calls.yaml" echo --kind call --count "$count" --in-flight 256 --size 64 \
        --seed 7 --name client --deadline 20s --list --json --log-level error >"$WORK/$1"
}
# judge OUTPUT: outcomes by kind, calls without one or with several, and replies that are another call's.
judge() {
    local counts
    counts=$(jq -r 'select(.id) | [.event, .id, .sha256 // .outcome, .reply_sha256 // ""] | @tsv' "$WORK/$1" |
        awk -F'\t' '
            $1 == "sent" { sent[$2] = $3 }
            $1 == "outcome" { if ($2 in ended) twice++; ended[$2] = $3; reply[$2] = $4 }
            END {
                for (id in ended) if (ended[id] == "accepted" && reply[id] != sent[id]) wrong++
                printf "{\"sent\":%d,\"ended\":%d,\"twice\":%d,\"wrong\":%d}\n", length(sent), length(ended),
                    twice, wrong
            }')
    jq -cn --arg case "$1" --argjson counts "$counts" --argjson summary "$(tail -n 1 "$WORK/$1")" '
        {case: $case} + $counts
        + {by_outcome: $summary.by_outcome, connections: $summary.connections_opened,
           calls_per_s: ($summary.messages_per_s | floor)}'
}

pids=()
serve first
call undisturbed
line=$(judge undisturbed)
echo "$line"
check_json "one connection, every call answered with its own bytes" "$line" \
    ".sent == $count and .ended == $count and .twice == 0 and .wrong == 0 and .connections == 1
        and .by_outcome == {accepted: $count}"

call disturbed &
calling=$!
eventually 30 "[ \$(grep -c outcome $WORK/disturbed) -gt $((count / 3)) ]" || fail "no calls"
kill -KILL "$(jq -r 'select(.event == "ready") | .pid' "$WORK/first")"
serve second
wait "$calling"
line=$(judge disturbed)
echo "$line"
check_json "killed and started again: every call ends in exactly one outcome" "$line" \
    ".sent == $count and .ended == $count and .twice == 0 and .wrong == 0 and .connections == 2
        and ([.by_outcome[]] | add) == $count and .by_outcome.accepted >= $count - 256"
stop "${pids[@]}"
"$CASTNET" lab down
finish
