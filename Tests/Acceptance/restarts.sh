#!/usr/bin/env bash
# A sender and three members. A member, then the sender, is killed and starts anew within a second; a member's
# and the sender's interface goes down for five seconds, is made anew, and changes its address. Each time the
# messages go on within three beacon intervals, nobody gets one twice or one that was not sent to it, and who
# was there all the time gets all of them.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

before=3 after=8
((QUICK)) && before=2 after=5
# The node's beacon interval is a second.
intervals=3
cat >"$WORK/restarts.yaml" <<'YAML'
node:      {interface: eth0, cluster: restarts}
channels:  {group: {group: 239.192.9.10, port: 7690}}
policies:
  - {match: "restarts", kinds: [fanout], carrier: multicast, channel: group}
  - {match: "**", carrier: persistent}
YAML
space() { jq -r "select(.host == \"$1\").netns" "$WORK/hosts"; }
address() { jq -r "select(.host == \"$1\").address" "$WORK/hosts"; }
routes() { ip -n "$(space "$1")" route replace 239.192.0.0/16 dev eth0; }

member() {
    start "h$((1 + $1))" "m$1.$2" "$CASTNET" serve "$WORK/restarts.yaml" restarts --join --name "m$1" --json \
        --log-level error
    eventually 20 "grep -q '\"ready\"' $WORK/m$1.$2" || fail "m$1 is not ready"
}
sender() {
    timeout --kill-after=5 100 "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/restarts.yaml" restarts \
        --kind fanout --name sender --size 500 --count "$2" --rate 100 --members 3 --list --stay 6s --json \
        --log-level error >"$WORK/s.$1" 2>"$WORK/s.$1.log" &
    pids+=($!)
    senders+=($!)
}
pid_of() { jq -r 'select(.event == "ready").pid' "$WORK/$1" | head -n 1; }

killed_member() {
    kill -KILL "$(pid_of m1.0)"
    sleep 0.5
    member 1 1
}
killed_sender() {
    kill -KILL "$(sender_pid)"
    sleep 0.3
    sender 1 $((100 * after))
}
sender_pid() { ip netns pids "$(space h1)" | while read -r pid; do
    grep -qz -- '--list' "/proc/$pid/cmdline" && grep -qz '^send$' "/proc/$pid/cmdline" && echo "$pid"; done |
    tail -n 1; }
interface_down() {
    ip -n "$(space "$1")" link set eth0 down
    sleep 5
    ip -n "$(space "$1")" link set eth0 up
    routes "$1"
}
interface_anew() {
    local number=${1#h} space
    space=$(space "$1")
    ip -n "$space" link del eth0
    sleep 1
    ip link add name eth0 netns "$space" type veth peer name "$1" netns "$bridge"
    ip -n "$bridge" link set "$1" up master \
        "$(ip -n "$bridge" -j link show type bridge | jq -r '.[0].ifname')"
    ip -n "$space" addr add "$(address "$1")/24" dev eth0
    ip -n "$space" link set eth0 up
    routes "$1"
}
address_changed() {
    local space
    space=$(space "$1")
    ip -n "$space" addr flush dev eth0
    ip -n "$space" addr add 10.77.0.99/24 dev eth0
    routes "$1"
}

# case_of NAME TROUBLED COMMAND…: TROUBLED names the member that may miss something; - is none.
case_of() {
    local name=$1 troubled=$2 pids=() senders=() at line number
    rm -f "$WORK"/m?.? "$WORK"/s.?
    "$CASTNET" lab down 2>/dev/null
    "$CASTNET" lab up --hosts 4 --json >"$WORK/hosts" || { fail "no lab"; finish; }
    bridge=$(ip netns list | awk '/-bridge/ {print $1}')
    for number in 1 2 3; do member "$number" 0; done
    sender 0 $((100 * (before + after + 7)))
    eventually 20 "grep -q '\"message\"' $WORK/m2.0" || fail "nothing is sent"
    sleep "$before"
    "${@:3}"
    at=$(date +%s.%N)
    wait "${senders[@]}"
    stop "${pids[@]}"
    line=$(for number in 1 2 3; do
        cat "$WORK/m$number".? | jq -cs --arg name "m$number" --argjson at "$at" '
            [.[] | select(.event == "message")] as $m
            | {name: $name, got: ($m | map(.id) | sort),
               twice: (($m | length) - ($m | map(.id) | unique | length)),
               first_after_s: ([$m[] | select(.at_s >= $at and .latency_s < 1) | .at_s - $at] | min),
               losses: ([.[] | select(.event == "loss")] | length)}'
    done | jq -cs --arg case "$name" --slurpfile sent <(cat "$WORK"/s.? | jq -c 'select(.event == "sent")') \
        --slurpfile last <(cat "$(ls "$WORK"/s.? | tail -n 1)" | jq -c 'select(.event == "sent")') '
        # What a killed sender said last may not have left it.
        ($sent | map(.id)) as $sent | ($last | map(.id)) as $last | {case: $case, sent: ($sent | length),
        members: map({name, twice, first_after_s, losses, foreign: (.got - $sent | length),
            missing: ($last - .got | length)})}')
    echo "$line"
    check_json "$name: goes on within three intervals" "$line" \
        "all(.members[]; .first_after_s != null and .first_after_s <= $intervals)"
    check_json "$name: nothing twice, nothing foreign" "$line" \
        'all(.members[]; .twice == 0 and .foreign == 0)'
    check_json "$name: who was there gets everything" "$line" \
        "all(.members[] | select(.name != \"$troubled\"); .missing == 0)"
}

case_of "member killed" m1 killed_member
((QUICK)) || case_of "sender killed" - killed_sender
((QUICK)) || case_of "member's interface down" - interface_down h2
((QUICK)) || case_of "sender's interface down" - interface_down h1
case_of "member's interface anew" - interface_anew h2
((QUICK)) || case_of "sender's interface anew" - interface_anew h1
((QUICK)) || case_of "member's address changed" - address_changed h2
((QUICK)) || case_of "sender's address changed" - address_changed h1
"$CASTNET" lab down
finish
