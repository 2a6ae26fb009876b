#!/usr/bin/env bash
# Eight members on four hosts, one of which is stopped (SIGSTOP) for ten seconds. A thousand messages a second
# of 1 KiB: it catches up without loss, and the others' 99th percentile is at most half again that of the
# undisturbed run, or 2 ms more. As fast as it goes: the others get at least 95 % of it. Medians of five
# interleaved pairs; the quick form leaves throughput out, of which a few seconds say nothing.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

pairs=5 paused=10 paced=16 unpaced=14
((QUICK)) && pairs=1 paused=3 paced=14
cat >"$WORK/stopped.yaml" <<'YAML'
node:      {interface: eth0, cluster: stopped}
channels:  {bulk: {group: 239.192.9.9, port: 7680}}
policies:
  - {match: "stopped", kinds: [fanout], carrier: multicast, channel: bulk}
  - {match: "**", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 5 --offload on --json >/dev/null || { fail "no lab"; finish; }

# run SECONDS STOPPED OPTIONS…: one line about the sender and the seven members that are never stopped.
run() {
    local seconds=$1 stopped=$2 number pids=() victim helper=
    rm -f "$WORK"/m?
    for number in 1 2 3 4 5 6 7 8; do
        start "h$((2 + (number - 1) % 4))" "m$number" "$CASTNET" bench listen "$WORK/stopped.yaml" stopped \
            --name "m$number" --json --log-level error
    done
    for number in 1 2 3 4 5 6 7 8; do eventually 20 "grep -q '\"ready\"' $WORK/m$number"; done
    victim=$(jq -r 'select(.event == "ready").pid' "$WORK/m8")
    if ((stopped)); then
        (sleep 3; kill -STOP "$victim" && sleep "$paused" && kill -CONT "$victim") &
        helper=$!
    fi
    timeout --kill-after=5 $((90 + seconds)) "$CASTNET" lab exec h1 -- "$CASTNET" bench fanout \
        "$WORK/stopped.yaml" stopped --name sender --size 1KiB --seconds "$seconds" --members 8 --json \
        --log-level error "${@:3}" >"$WORK/sender" 2>>"$WORK/sender.log"
    [ -z "$helper" ] || wait "$helper" || return
    stop "${pids[@]}"
    jq -cn --slurpfile sender "$WORK/sender" --slurpfile others <(cat "$WORK"/m[1-7] |
        jq -c 'select(.latencies)') --slurpfile stopped <(jq -c 'select(.latencies)' "$WORK/m8") '
        ($others | map(.latencies) | add | sort) as $all
        | {sent: $sender[0].sent, missing: ($others | map($sender[0].sent - .messages) | add),
           missing_at_stopped: ($sender[0].sent - $stopped[0].messages), declared: $stopped[0].lost,
           lines: ($sender + $stopped + $others | length),
           p50: $all[$all | length / 2 | floor], p99: $all[$all | length * 99 / 100 | floor],
           rate: ($sender[0].sent / '"$seconds"')}'
}

paced_calm=() paced_stopped=() fast_calm=() fast_stopped=()
for ((pair = 1; pair <= pairs; pair++)); do
    paced_calm+=("$(run "$paced" 0 --rate 1000)")
    paced_stopped+=("$(run "$paced" 1 --rate 1000)")
    ((QUICK)) && continue
    fast_calm+=("$(run "$unpaced" 0)")
    fast_stopped+=("$(run "$unpaced" 1)")
done
lines=$(printf '%s\n' "${paced_calm[@]}" | jq -c '. + {case: "paced, undisturbed"}'
    printf '%s\n' "${paced_stopped[@]}" | jq -c '. + {case: "paced, one stopped"}'
    ((QUICK)) && exit
    printf '%s\n' "${fast_calm[@]}" | jq -c '. + {case: "unpaced, undisturbed"}'
    printf '%s\n' "${fast_stopped[@]}" | jq -c '. + {case: "unpaced, one stopped"}')
echo "$lines"
sum=$(jq -cs --argjson paused "$paused" '
    def of($case): map(select(.case == $case));
    def median(f): map(f) | sort | .[length / 2 | floor];
    {what: "one of eight members stopped", stopped_s: $paused,
     p99_undisturbed: (of("paced, undisturbed") | median(.p99)),
     p99_stopped: (of("paced, one stopped") | median(.p99)),
     rate_undisturbed: (of("unpaced, undisturbed") | median(.rate)),
     rate_stopped: (of("unpaced, one stopped") | median(.rate)),
     missing: (map(.missing) | add),
     missing_at_stopped: (of("paced, one stopped") | map(.missing_at_stopped) | add)}
    | .rate_ratio = (if .rate_undisturbed then .rate_stopped / .rate_undisturbed else null end)' <<<"$lines")
echo "$sum"
check_json "every run has its sender and eight members" "$(jq -cs . <<<"$lines")" \
    "length == $((pairs * (QUICK ? 2 : 4))) and all(.lines == 9)"
check_json "it catches up without loss" "$sum" '.missing_at_stopped == 0'
check_json "nothing is missing at the others" "$sum" '.missing == 0'
check_json "the others' p99 is half again at most, or 2 ms more" "$sum" \
    '.p99_stopped <= ([1.5 * .p99_undisturbed, .p99_undisturbed + 0.002] | max)'
((QUICK)) || check_json "the others get 95 % of the undisturbed throughput" "$sum" '.rate_ratio >= 0.95'
((QUICK)) || check_json "what it is too late for is declared" "$(jq -cs . <<<"$lines")" \
    'all(.missing_at_stopped == 0 or .declared > 0)'
finish
