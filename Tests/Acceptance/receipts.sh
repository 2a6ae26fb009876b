#!/usr/bin/env bash
# Receipts under kills, stops and cuts at random: of 32 simulated members, then of twelve real ones on four
# hosts, one of which loses a tenth of its datagrams. Every row of every receipt that says a member has
# received or processed a message is true, and no member that was there is without a row. SEED repeats a run.
source "$(dirname "$0")/lib.sh" "$@"

seconds=20 seeds=300
((QUICK)) && seconds=8 seeds=40
rate=50
# The simulator needs no lab, and is built before there is one.
if [ "${CASTNET_LAB:-}" != 1 ]; then
    build_test_program Simulator
    result=$("$PROGRAM" seeds --members 32 --count "$seeds")
    echo "$result"
    check_json "32 simulated members, $seeds seeds: no row is false, none is missing" \
        "$(tail -n 1 <<<"$result")" ".seeds == $seeds and .failed == 0 and .receipt_rows > 32 * $seeds"
    export SIMULATED="$passed $failed"
fi
in_lab
read -r passed failed <<<"${SIMULATED:-0 0}"
RANDOM=${SEED:=$RANDOM}
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
        --rate $rate --in-flight 1000 --list --receipt $kind --deadline 5s --members 12 --json \
        --log-level error >"$WORK/sent-$kind" 2>"$WORK/sent-$kind.log" &
    senders+=($!)
done
eventually 20 "grep -q receipts.processed $WORK/m1" || fail "nothing is sent"
"$CASTNET" lab fault h5 drop 10% udp in >/dev/null || fail "drop at h5"

# When something first happened to each member: from then on it may be out of the senders' view.
declare -A since=() killed=() stopped=()
note() { [ -n "${since[$1]:-}" ] || since[$1]=$(date +%s.%N); }
kill_one() {
    if ((${#killed[@]} == 3)) || [ -n "${killed[$1]:-}" ]; then return; fi
    killed[$1]=1
    note "$1"
    kill -KILL "$(pid_of "$1")" || fail "kill of $1"
}
stop_one() {
    local pid
    if [ -n "${killed[$1]:-}${stopped[$1]:-}" ]; then return; fi
    stopped[$1]=1
    note "$1"
    pid=$(pid_of "$1")
    kill -STOP "$pid" || fail "stop of $1"
    (sleep "$((RANDOM % 3)).$((1 + RANDOM % 9))"; kill -CONT "$pid") &
    helpers+=($!)
}
cut_off() {
    local number
    for number in $(seq 12); do (($1 == 2 + number % 4)) && note "m$number"; done
    "$CASTNET" lab fault "h$1" blackout --for "$((500 + RANDOM % 1500))ms" >/dev/null ||
        fail "blackout at h$1"
}
helpers=()
done_at=$((SECONDS + seconds - 3))
# Each kind once, then any. Nothing but loss happens to the last two members: they must be in every receipt.
for ((turn = 0; SECONDS < done_at; turn++)); do
    sleep "0.$((3 + RANDOM % 7))"
    number=$((1 + RANDOM % 8))
    case $((turn < 3 ? turn : RANDOM % 3)) in
        0) kill_one "m$number" ;;
        1) stop_one "m$number" ;;
        2) cut_off $((3 + RANDOM % 2)) ;;
    esac
done
wait "${helpers[@]}"
wait "${senders[@]}"
sleep 1
stop "${pids[@]}"

# Only what a member printed is certain; one that was killed may have had more in its memory.
for number in $(seq 12); do
    jq -r --arg node "m$number" 'select(.event == "message") | "\($node) \(.id)"' "$WORK/m$number" 2>/dev/null
done | sort -u >"$WORK/had"
troubles=$(for name in "${!since[@]}"; do emit_json "$name=${since[$name]}"; done | jq -cs 'add // {}')
delivered='.outcome | IN("local", "multicast", "repaired", "unicast")'
for kind in received processed; do
    rows=$(jq -c 'select(.event == "receipt")' "$WORK/sent-$kind")
    jq -r ".members[] | select($delivered) | \"\(.node) \(.id)\"" <<<"$(jq -c \
        '.id as $id | .members |= map(.id = $id)' <<<"$rows")" | sort -u >"$WORK/said-$kind"
    false_rows=$(comm -23 "$WORK/said-$kind" "$WORK/had")
    if [ $kind = received ]; then
        for name in "${!killed[@]}"; do false_rows=$(grep -v "^$name " <<<"$false_rows"); done
    fi
    line=$(jq -cs --arg kind "$kind" --argjson false "$(grep -c . <<<"$false_rows")" --argjson seed "$SEED" \
        --argjson since "$troubles" --slurpfile list <(jq -c 'select(.event == "sent")' "$WORK/sent-$kind") '
        ($list | map({key: .id, value: .at_s}) | from_entries) as $at
        | {kind: $kind, seed: $seed, troubled: ($since | length), listed: ($list | length),
        receipts: length, rows: (map(.members | length) | add), false: $false,
        outcomes: ([.[].members[].outcome] | group_by(.) | map({key: .[0], value: length}) | from_entries),
        missing: [.[] | .id as $id | [.members[].node] as $had | range(1; 13) | "m\(.)"
            | select($at[$id] < ($since[.] // infinite) - 0.1 and (IN($had[]) | not))] | length}' <<<"$rows")
    echo "$line"
    check_json "$kind: a receipt for every message" "$line" \
        ".receipts == $((rate * seconds)) and .listed == .receipts"
    check_json "$kind: no row says what is not so" "$line" '.false == 0'
    check_json "$kind: every member that was there has its row" "$line" '.missing == 0'
    check_json "$kind: most rows say that it arrived" "$line" '.outcomes.multicast > .rows / 2'
done
finish
