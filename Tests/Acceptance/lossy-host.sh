#!/usr/bin/env bash
# Four senders and four members, each a process of its own, with 5 % of data, repairs and NAKs lost and
# nothing but PGM to repair them: all on one host, then on two, then on one with two members on another.
# Everything arrives.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

count=20000 runs=3
((QUICK)) && count=2000 runs=1
cat >"$WORK/lossy.yaml" <<'YAML'
node:      {interface: eth0, cluster: lossy, testing: true}
channels:
  bulk:
    group: 239.192.9.2
    port: 7610
    repair: pgm-only
    faults: {drop: 0.05, direction: in, types: [odata, rdata, nak]}
policies:
  - {match: "lossy.**", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 2 --json >/dev/null || { fail "no lab"; finish; }

# member HOST NAME, send_from HOST NAME MEMBERS: one process each.
member() {
    "$CASTNET" lab exec "$1" -- "$CASTNET" serve "$WORK/lossy.yaml" 'lossy.**' --join --name "$2" --json \
        --set "channels.bulk.faults.seed=$RANDOM" --log-level error >"$WORK/$2.out" 2>"$WORK/$2.err" &
    members+=($!)
    names+=("$2")
}
send_from() {
    "$CASTNET" lab exec "$1" -- "$CASTNET" send "$WORK/lossy.yaml" "lossy.$2" --kind fanout --name "$2" \
        --size 1200 --count "$count" --members "$3" --members-timeout 30s --stay 3s --json \
        --set "channels.bulk.faults.seed=$RANDOM" --log-level error >"$WORK/$2.out" 2>"$WORK/$2.err" &
    senders+=($!)
}

# round NAME SENDERS_HOST MEMBERS_HOST REMOTE: one run of one topology.
round() {
    local name=$1 remote=$4 number started=$SECONDS pid
    members=() senders=() names=()
    for number in 1 2 3 4; do member "$3" "m$number"; done
    for ((number = 1; number <= remote; number++)); do member h2 "r$number"; done
    for number in "${names[@]}"; do
        for _ in $(seq 200); do grep -q '"ready"' "$WORK/$number.out" && break; sleep 0.1; done
    done
    for number in 1 2 3 4; do send_from "$2" "s$number" "${#members[@]}"; done
    for pid in "${senders[@]}"; do wait "$pid" || fail "$name: a sender ended with $?"; done
    kill -TERM "${members[@]}" 2>/dev/null
    for pid in "${members[@]}"; do wait "$pid"; done
    judge "$name" $((SECONDS - started))
}

# judge NAME SECONDS: every member has 4 × count messages, once each, and no loss.
judge() {
    local member summaries
    summaries=$(for member in "${names[@]}"; do
        jq -c --arg member "$member" 'select(.event == "summary")
            | {member: $member, messages, losses, duplicates, repaired: .repaired_by.pgm,
               requests: .counters["pgm.out.nak"], dropped: .counters["pgm.rejected.fault"],
               kernel: .counters["kernel.dropped"]}' \
            "$WORK/$member.out"
    done | jq -cs .)
    emit_json round="$1" seconds="$2" members="$summaries"
    check_json "$1: all of 4 × $count messages at each of ${#names[@]} members, no loss" "$summaries" \
        "length == ${#names[@]} and all(.messages == 4 * $count and .losses == 0)"
    check_json "$1: packets were lost on the way" "$summaries" 'all(.dropped > 0 and .repaired > 0)'
}

for ((run = 1; run <= runs; run++)); do
    round "one host, run $run" h1 h1 0
    round "two hosts, run $run" h1 h2 0
    round "one host and two remote members, run $run" h1 h1 2
done
"$CASTNET" lab down
finish
