#!/usr/bin/env bash
# Eight members on four hosts, a hundred messages a second. In the middle one host receives no datagrams for
# eight seconds; then the sender's datagrams are lost on their way out for as long. Who does not hear the
# group has the messages over links within two seconds, goes back within ten once it hears, and nothing is
# lost; both ends name it.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

cases=("one member:h2:in" "the sender:h1:out")
before=4 fault=8 after=12
if ((QUICK)); then before=3 fault=3 after=6; fi
seconds=$((before + fault + after))
cat >"$WORK/paths.yaml" <<'YAML'
node:      {interface: eth0, cluster: paths}
channels:  {group: {group: 239.192.9.9, port: 7680}}
policies:
  - {match: "paths", kinds: [fanout], carrier: multicast, channel: group, fallback: unicast}
  - {match: "**", carrier: persistent}
YAML

# run NAME HOST DIRECTION
run() {
    local name=$1 host=$2 direction=$3 number sender at healed members=() line named
    "$CASTNET" lab down 2>/dev/null
    "$CASTNET" lab up --hosts 5 --offload on --json >/dev/null || { fail "no lab"; finish; }
    pids=()
    for number in 1 2 3 4 5 6 7 8; do
        start "h$((2 + number % 4))" "m$number" "$CASTNET" serve "$WORK/paths.yaml" paths --join \
            --name "m$number" --json --log-level error
    done
    for number in 1 2 3 4 5 6 7 8; do
        eventually 20 "grep -q '\"ready\"' $WORK/m$number" || fail "m$number is not ready"
    done
    timeout --kill-after=5 100 "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/paths.yaml" paths \
        --kind fanout --name sender --size 1000 --count $((100 * seconds)) --rate 100 --members 8 \
        --stay 8s --json --log-level warning >"$WORK/sent" 2>"$WORK/sent.log" &
    sender=$!
    eventually 20 "grep -q '\"message\"' $WORK/m1" || fail "nothing is sent"
    sleep "$before"
    at=$(date +%s.%N)
    "$CASTNET" lab fault "$host" drop 100% udp "$direction" --for "${fault}s" >/dev/null || fail "fault"
    healed=$(date +%s.%N)
    wait "$sender"
    stop "${pids[@]}"
    for number in 1 2 3 4 5 6 7 8; do
        members+=("$(jq -cs --arg name "m$number" --argjson at "$at" --argjson healed "$healed" '
            [.[] | select(.event == "message")] as $m | [.[] | select(.event == "path")] as $p
            | {name: $name, messages: ($m | length), ordered: ([$m[].seq] | . == (sort | unique)),
               losses: ([.[] | select(.event == "loss")] | length),
               tcp: ([$m[] | select(.repaired == "tcp")] | length),
               served_s: ([$m[] | select(.repaired == "tcp" and .at_s >= $at) | .at_s - $at] | min),
               latency_max_s: ([$m[].latency_s] | max),
               back_s: ([$p[] | select(.path == "multicast") | .at_s - $healed] | max),
               paths: [$p[] | {path, why}]}' "$WORK/m$number")")
    done
    line=$(jq -cs --arg case "$name" '{case: $case, members: .}' <<<"${members[*]}")
    echo "$line"
    # Two of eight members are on the host that is cut off.
    local cut='.members | map(select(.name == "m4" or .name == "m8"))' cut_names="m4 m8"
    if [ "$direction" = out ]; then cut='.members' cut_names="m1 m2 m3 m4 m5 m6 m7 m8"; fi
    check_json "$name: everything arrives once and in order" "$line" \
        ".members | length == 8 and all(.messages == $((100 * seconds)) and .ordered and .losses == 0)"
    check_json "$name: who is cut off is served within 2 s" "$line" \
        "$cut | length >= 2 and all(.served_s != null and .served_s <= 2 and .latency_max_s <= 2.5)"
    check_json "$name: the member names it, and names its return" "$line" \
        "$cut | all((.paths | map(.path)) == [\"unicast\", \"multicast\"])"
    check_json "$name: and is back within 10 s of the healing" "$line" \
        "$cut | all(.back_s != null and .back_s <= 10)"
    check_json "$name: nobody else is served by unicast" "$line" \
        "(.members - ($cut)) | all(.paths == [])"
    for number in $cut_names; do
        named=$(grep 'how a member gets' "$WORK/sent.log" | grep "castnet.peer=$number\b")
        check "$name: the sender names $number and why, there and back" \
            'grep -q reason=not-heard <<<"$named" && grep -q path=multicast <<<"$named"'
    done
}

for case in "${cases[@]}"; do
    IFS=: read -r name host direction <<<"$case"
    run "$name" "$host" "$direction"
done
"$CASTNET" lab down
finish
