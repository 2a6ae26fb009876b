#!/usr/bin/env bash
# Messages from 10 bytes to 4 MiB to eight members on four hosts, with datagrams lost at one member's host or
# at all, packet by packet or whole coalesced buffers at a time, with segments of TCP lost as well, and with a
# blackout: everything arrives once and in order, what PGM gave up comes over TCP, and nothing is lost.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

# size:count of each topic, one sending process each: 2,200 messages and 75 MiB in all.
loads=(10:1600 1KiB:400 64KiB:160 1MiB:24 4MiB:10)
((QUICK)) && loads=(10:400 1KiB:100 64KiB:40 1MiB:6 4MiB:2)
cat >"$WORK/matrix.yaml" <<'YAML'
node:      {interface: eth0, cluster: matrix}
channels:  {bulk: {group: 239.192.9.5, port: 7640, slow: pace}}
policies:
  - {match: "matrix.**", kinds: [fanout], carrier: multicast, channel: bulk, fallback: none}
  - {match: "**", carrier: persistent}
YAML
total=0
for load in "${loads[@]}"; do ((total += ${load#*:})); done

lab() {
    "$CASTNET" lab down 2>/dev/null
    "$CASTNET" lab up --hosts 5 --offload "$1" --json >/dev/null || { fail "no lab"; finish; }
}
# fault HOSTS FAULT…: puts it on each of them.
fault() {
    local host
    for host in $1; do
        "$CASTNET" lab fault "$host" "${@:2}" >/dev/null || fail "fault ${*:2} at $host"
    done
}

# start_members: two on each of four hosts, ready.
start_members() {
    local number host
    members=() names=()
    for number in 1 2 3 4 5 6 7 8; do
        host=h$((2 + (number - 1) % 4))
        "$CASTNET" lab exec "$host" -- "$CASTNET" serve "$WORK/matrix.yaml" 'matrix.**' --join \
            --name "m$number" --json --log-level error >"$WORK/m$number.out" 2>"$WORK/m$number.err" &
        members+=($!)
        names+=("m$number")
    done
    for number in "${names[@]}"; do
        for _ in $(seq 300); do grep -q '"ready"' "$WORK/$number.out" && break; sleep 0.1; done
    done
}
send_all() {
    local load pid
    senders=()
    for load in "${loads[@]}"; do
        "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/matrix.yaml" "matrix.s${load%:*}" --kind fanout \
            --name "s${load%:*}" --size "${load%:*}" --count "${load#*:}" --members 8 --members-timeout 30s \
            --stay 12s --json --log-level error >"$WORK/s${load%:*}.out" 2>"$WORK/s${load%:*}.err" &
        senders+=($!)
    done
}

# have_all: every member has printed all messages.
count_lines() { grep -c '"message"' "$WORK/$1.out"; }
have_all() {
    local name
    for name in "${names[@]}"; do (($(count_lines "$name") >= total)) || return 1; done
}

# run NAME HOSTS [FAULT…]: a case; the fault of the hosts begins once the members are ready. TCP: a share of
# segments lost there as well. DURING: how long they are cut off in the middle.
run() {
    local name=$1 hosts=$2 started pid during=${DURING:-}
    shift 2
    start_members
    if (($# > 0)); then fault "$hosts" "$@"; fi
    [ -n "${TCP:-}" ] && fault "$hosts" drop "$TCP" tcp
    started=$(date +%s%N)
    send_all
    if [ -n "$during" ]; then sleep 0.7; fault "$hosts" blackout --for "$during"; fi
    for _ in $(seq 600); do have_all && break; sleep 0.1; done
    local seconds=$(( ($(date +%s%N) - started) / 1000000 ))
    kill -TERM "${senders[@]}" 2>/dev/null
    for pid in "${senders[@]}"; do wait "$pid"; done
    fault "h2 h3 h4 h5" clear
    kill -TERM "${members[@]}" 2>/dev/null
    for pid in "${members[@]}"; do wait "$pid"; done
    judge "$name" "$seconds"
}

# judge NAME MILLISECONDS: all messages at every member, once, in order of each sender and topic, none lost.
judge() {
    local name summaries
    summaries=$(for name in "${names[@]}"; do
        jq -cs --arg member "$name" '
            [.[] | select(.event == "message")] as $messages
            | (map(select(.event == "summary"))[0]) as $summary
            | {member: $member, messages: ($messages | length), losses: $summary.losses,
               ordered: ($messages | group_by(.topic)
                   | all(map(.seq) as $seen | $seen == [range(1; ($seen | length) + 1)])),
               pgm: ($summary.counters["stream.repaired.pgm"] // 0),
               tcp: ($summary.counters["stream.repaired.tcp"] // 0),
               gaps: ($summary.counters["stream.gaps"] // 0)}' "$WORK/$name.out"
    done | jq -cs .)
    emit_json case="$1" milliseconds="$2" members="$summaries"
    check_json "$1: $total messages at each of 8 members, in order, none lost, within 20 s" \
        "$(jq -c --argjson ms "$2" '{ms: $ms, members: .}' <<<"$summaries")" \
        "(.members | length == 8 and all(.messages == $total and .losses == 0 and .ordered)) and .ms <= 20000"
}

all="h2 h3 h4 h5"
if ((QUICK)); then
    lab off
    run "20 % on all" "$all" drop 20% udp in
    "$CASTNET" lab down
    finish
fi
for offload in off on; do
    lab "$offload"
    run "offload $offload: no loss" h2
    for loss in 1% 5% 20%; do
        run "offload $offload: $loss on one host" h2 drop "$loss" udp in
        run "offload $offload: $loss on all" "$all" drop "$loss" udp in
    done
done
TCP=5% run "5 % of datagrams and of TCP on all" "$all" drop 5% udp in
run "40 % on all" "$all" drop 40% udp in
DURING=5s run "a blackout of 5 s at one host" h2
"$CASTNET" lab down
finish
