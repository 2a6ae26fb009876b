#!/usr/bin/env bash
# What many members cost a sender. Ten thousand simulated ones: at most 2,000 reports a second, receipts
# complete within 15 s. A thousand simulated and 64 real ones that lose the same five seconds: at most 16
# repair sessions, repair bytes at most half again what was lost and a frame's share a session, live traffic
# at 70 % or more, and everything arrives.
source "$(dirname "$0")/lib.sh" "$@"

simulated() {
    local crowd=10000 common=1000 result
    ((QUICK)) && common=200
    build_test_program Simulator
    result=$("$PROGRAM" crowd --members "$crowd")
    echo "$result"
    check_json "$crowd simulated: at most 2,000 reports a second" "$result" '.reports_per_s_max <= 2000'
    check_json "$crowd simulated: receipts within 15 s" "$result" \
        '.receipts_complete_s > 0 and .receipts_complete_s <= 15 and .faults == ""'
    result=$("$PROGRAM" common-loss --members "$common")
    echo "$result"
    judge "$common simulated" "$result"
    check_json "$common simulated: nothing false" "$result" '.faults == ""'
}
# judge NAME JSON
judge() {
    check_json "$1 lose five seconds: all of it is repaired" "$2" '.lost == 0'
    check_json "$1: at most 16 sessions" "$2" '.sessions_max > 0 and .sessions_max <= 16'
    check_json "$1: repair bytes" "$2" '.repair_bytes > 0 and .repair_bytes <= 1.5 * .lost_bytes + 524288'
    check_json "$1: live traffic at 70 %" "$2" '.live_ratio_min >= 0.7'
}
# The simulator needs no lab, and is built before there is one.
if [ "${CASTNET_LAB:-}" != 1 ]; then
    simulated
    ((QUICK)) && finish
    export SIMULATED="$passed $failed"
fi
in_lab
read -r passed failed <<<"${SIMULATED:-0 0}"

rate=200 size=4096 count=3600
cat >"$WORK/crowd.yaml" <<'YAML'
node:      {interface: eth0, cluster: crowd}
channels:  {group: {group: 239.192.9.11, port: 7700}}
policies:
  - {match: "crowd", kinds: [fanout], carrier: multicast, channel: group}
  - {match: "**", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 5 --json >/dev/null || { fail "no lab"; finish; }
pids=()
start h2 m1 "$CASTNET" serve "$WORK/crowd.yaml" crowd --join --name m1 --json --log-level error
for number in $(seq 2 64); do
    start "h$((2 + number % 4))" "m$number" "$CASTNET" bench listen "$WORK/crowd.yaml" crowd \
        --name "m$number" --json --log-level error
done
for number in $(seq 64); do
    eventually 60 "grep -q '\"ready\"' $WORK/m$number" || fail "m$number is not ready"
done
timeout --kill-after=5 100 "$CASTNET" lab exec h1 -- "$CASTNET" send "$WORK/crowd.yaml" crowd --kind fanout \
    --name sender --size "$size" --count "$count" --rate "$rate" --members 64 --list --stay 8s --json \
    --log-level error >"$WORK/sent" 2>"$WORK/sent.log" &
sender=$!
eventually 30 "grep -q '\"message\"' $WORK/m1" || fail "nothing is sent"
sleep 4
"$CASTNET" lab fault h1 blackout --for 5s >/dev/null || fail "blackout"
healed=$(date +%s.%N)
wait "$sender"
stop "${pids[@]}"
result=$(jq -cn --argjson healed "$healed" --slurpfile m1 <(jq -c 'select(.event == "message")' "$WORK/m1") \
    --slurpfile list <(jq -c 'select(.event == "sent")' "$WORK/sent") \
    --slurpfile others <(for number in $(seq 2 64); do jq -c 'select(.latencies) | .messages' "$WORK/m$number"
        done) --slurpfile sent <(jq -c 'select(.event == "summary")' "$WORK/sent") \
    --argjson lost_bytes $((5 * rate * size)) --argjson rate "$rate" --argjson count "$count" '
    def bin($s): [$list[] | select(.at_s >= $healed + $s and .at_s < $healed + $s + 1)] | length / $rate;
    {what: "64 real members lose five seconds",
     lost: ([$count - ($m1 | length)] + [$others[] | $count - .] | add),
     members: (($others | length) + 1), lost_bytes: $lost_bytes,
     sessions_max: ($sent[0].counters["stream.repairs.sessions"]),
     repair_bytes: ($sent[0].counters["stream.repairs.bytes"]),
     resent: ($sent[0].counters["stream.repairs.resent"] // 0),
     served: ($sent[0].counters["stream.repairs.served"] // 0),
     repaired_s: ([$m1[] | select(.repaired != false) | .at_s - $healed] | max),
     live_ratio_min: ([range(0; 6)] | map(bin(.)) | min)}')
echo "$result"
check_json "64 real members" "$result" '.members == 64'
judge "64 real" "$result"
"$CASTNET" lab down
finish
