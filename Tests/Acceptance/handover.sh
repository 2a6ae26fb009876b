#!/usr/bin/env bash
# Work changes hands. Three servers under 5,000 casts a second, and one of them is killed (SIGKILL) in the
# middle: where casts may be repeated, none is lost; where they may not, none is handled twice, and those end
# `lost` that the dead server had started and not answered, no more and no fewer. Then a rolling restart, one
# server after the other (SIGTERM), under calls: none fails.
#
# A cast that fails has no id for its sender, so casts are known by the hash of their payload, which is a
# function of their number. `serve` prints its line, unbuffered, once --work is done and before --reply
# begins. So what a server had started is known to the last cast only of one that works in --reply (`held`):
# its handlers are held until all of them are busy, and then it is killed. Of the one that is killed in full
# flow (`once`), up to --concurrency casts were running that have no line.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

rate=5000 count=30000 carriers="persistent ephemeral" pace=1000 calls=12000
((QUICK)) && count=10000 carriers=persistent calls=9000
# Three servers take somewhat less than the casts that come, so that work waits at each of them.
flow=(--work 3ms --concurrency 4) flowing=4 held=16
cat >"$WORK/handover.yaml" <<'YAML'
node:      {interface: eth0, cluster: handover}
policies:
  - {match: "work", carrier: persistent, settle: processed, retry: other-member, backlog: 100000}
  - {match: "roll", carrier: persistent}
YAML
"$CASTNET" lab up --hosts 4 --json >/dev/null || { fail "no lab"; finish; }

pid_of() { jq -r 'select(.event == "ready").pid' "$WORK/$1" | head -n 1; }
lines() { wc -l <"$WORK/$1"; }

# serve NAME.START TOPIC OPTIONS…: a server on its own host: s2 on h2.
serve() {
    local name=${1%.*}
    start "h${name#s}" "$1" "$CASTNET" serve "$WORK/handover.yaml" "$2" --name "$name" --json \
        --log-level error "${settings[@]}" "${@:3}"
    eventually 20 "grep -qs '\"ready\"' $WORK/$1" || fail "$1 is not up"
}

# kill_second: now, and says when; the shell tells of processes that are killed.
kill_second() {
    kill -KILL "$(pid_of s2.0)"
    killed_at=$EPOCHREALTIME
    wait "${pids[1]}" 2>/dev/null
}
strike_in_flow() {
    eventually 20 "[ \$(lines s2.0) -gt 2 ]" || fail "s2 handles nothing"
    sleep $((count / rate / 2))
    kill_second
}
strike_held() {
    eventually 20 "[ \$(lines s2.0) -gt 50 ]" || fail "s2 handles nothing"
    touch "$WORK/hold"
    # What was under way ends and is answered; every handler gets one that it holds.
    sleep 1
    kill_second
}

# count_up: what became of the casts; unhandled: accepted, and in no server's lines; elsewhere: lost, and in
# a living server's lines. The two differences between what ended lost and what the dead server had started
# and not answered are started_not_lost and lost_not_started.
count_up() {
    local server
    for server in s1 s2 s3; do
        grep '}$' "$WORK/$server.0" | jq -r --arg server $server 'select(.event == "message")
            | [$server, .sha256, .at_s - .latency_s] | @tsv'
    done >"$WORK/handled"
    grep '}$' "$WORK/casts" | jq -r 'select(.event == "sent" or .event == "outcome")
        | [.event, .id, .sha256 // .outcome] | @tsv' >"$WORK/ended"
    awk -F'\t' '
        FILENAME ~ /handled$/ {
            times[$2]++
            if ($1 == "s2") dead[$2]; else alive[$2]
            if (!first || $3 < first) first = $3
            if ($3 > last) last = $3
        }
        FILENAME ~ /ended$/ && $1 == "sent" { hash[$2] = $3; known[$3]; sent++ }
        FILENAME ~ /ended$/ && $1 == "outcome" { outcome[hash[$2]] = $3 }
        END {
            for (one in times) { if (times[one] > 1) twice++; if (!(one in known)) foreign++ }
            for (one in known) {
                how = (one in outcome) ? outcome[one] : "accepted"
                if (how == "accepted" && !(one in times)) unhandled++
                if (how == "lost" && !(one in dead)) lost_not_started++
                if (how == "lost" && (one in alive)) elsewhere++
                if (how != "accepted" && (one in dead)) { started++; if (how != "lost") started_not_lost++ }
            }
            printf "{\"sent\":%d,\"different\":%d,\"unhandled\":%d,\"twice\":%d,\"foreign\":%d,",
                sent, length(known), unhandled, twice, foreign
            printf "\"started_unanswered\":%d,\"started_not_lost\":%d,", started, started_not_lost
            printf "\"lost_not_started\":%d,\"elsewhere\":%d,", lost_not_started, elsewhere
            printf "\"first\":%.6f,\"last\":%.6f}\n", first, last
        }' "$WORK/handled" "$WORK/ended"
}

# killed NAME CARRIER IDEMPOTENT STRIKE OPTIONS…: three servers under casts, the second with OPTIONS; sets
# `line` and checks what is true of each such case.
killed() {
    local name="$1, $2" pids=() killed_at client code server summary settings=()
    settings=(--set "node.cluster=$1-$2" --set "policies[0].carrier=$2" --set "policies[0].idempotent=$3")
    rm -f "$WORK"/s?.? "$WORK/casts" "$WORK/hold"
    serve s1.0 work "${flow[@]}"
    serve s2.0 work "${@:5}"
    serve s3.0 work "${flow[@]}"
    start h4 casts "$CASTNET" send "$WORK/handover.yaml" work --kind cast --name client --count "$count" \
        --rate $rate --in-flight "$count" --size 16 --seed 7 --deadline 40s --members 3 --list --json \
        --log-level error "${settings[@]}"
    client=${pids[-1]}
    "$4"
    wait "$client"
    code=$?
    stop "${pids[@]}"
    summary=$(grep '"summary"' "$WORK/casts")
    line=$(jq -cn --arg case "$name" --argjson killed_at "$killed_at" --argjson exit "$code" \
        --argjson handled "[$(for server in s1 s2 s3; do grep -c '"message"' "$WORK/$server.0"; done |
            paste -sd,)]" --argjson counts "$(count_up)" --argjson summary "${summary:-null}" '
        {case: $case, exit: $exit, by_outcome: $summary.by_outcome, handled: $handled}
        + ($counts | del(.first, .last))
        + {offered_per_s: (($counts.sent / ($counts.last - $counts.first)) | round),
           killed_after_s: ($killed_at - $counts.first | . * 100 | round / 100),
           load_s: ($counts.last - $counts.first | . * 100 | round / 100),
           seconds: ($summary.seconds | . * 10 | round / 10),
           retried: $summary.counters["messages.retried"]}')
    echo "$line"
    check_json "$name: killed in the middle of $rate casts a second" "$line" \
        ".offered_per_s >= 0.9 * $rate and .killed_after_s > 0 and .killed_after_s < .load_s"
    check_json "$name: every cast ends, every accepted one was handled" "$line" \
        ".sent == $count and .different == $count and ([.by_outcome[]] | add) == $count
            and .unhandled == 0 and .foreign == 0"
}

# mourned NAME: what is true wherever a cast may not be repeated.
mourned() {
    check_json "$1: none is handled twice" "$line" '.twice == 0'
    check_json "$1: what is not accepted is lost, and with nobody else" "$line" \
        '(.by_outcome | keys - ["accepted", "lost"] == []) and .elsewhere == 0'
    check_json "$1: what the dead server had started and not answered is lost" "$line" \
        '.started_not_lost == 0'
}

kills() {
    local carrier=$1 hold="exec:if [ -e $WORK/hold ]; then exec sleep 60; fi"
    killed repeatable "$carrier" true strike_in_flow "${flow[@]}"
    check_json "repeatable, $carrier: none is lost" "$line" \
        ".by_outcome == {accepted: $count} and .exit == 0"

    killed once "$carrier" false strike_in_flow "${flow[@]}"
    mourned "once, $carrier"
    check_json "once, $carrier: what was running is lost, and nothing that waited" "$line" \
        ".by_outcome.lost >= 1 and .lost_not_started <= $flowing"

    killed held "$carrier" false strike_held --reply "$hold" --concurrency $held
    mourned "held, $carrier"
    check_json "held, $carrier: lost is exactly what the dead server had started" "$line" \
        ".started_unanswered == $held and .by_outcome.lost == $held and .lost_not_started == 0"
}

# rolling CARRIER: one server after the other ends and starts again, under the calls of two clients.
rolling() {
    local carrier=$1 pids=() servers=() callers=() ends=() codes=() settings=() number begun line
    local covered=true
    settings=(--set "node.cluster=rolling-$carrier" --set "policies[1].carrier=$carrier")
    rm -f "$WORK"/s?.? "$WORK"/calls?
    for number in 1 2 3; do
        serve "s$number.0" roll --work 2ms --concurrency 16
        servers[number]=${pids[-1]}
    done
    for number in 1 2; do
        start h4 "calls$number" "$CASTNET" send "$WORK/handover.yaml" roll --kind call \
            --name "client$number" --count "$calls" --rate $pace --in-flight 64 --size 64 --deadline 5s \
            --members 3 --json --log-level error "${settings[@]}"
        callers+=("${pids[-1]}")
    done
    eventually 20 "[ \$(cat $WORK/calls2 2>/dev/null | grep -c outcome) -ge 500 ]" ||
        fail "$carrier: nothing is called"
    for number in 1 2 3; do
        begun=$EPOCHREALTIME
        kill -TERM "$(pid_of "s$number.0")"
        wait "${servers[number]}"
        ends+=("{\"exit\":$?,\"seconds\":$(jq -n "$EPOCHREALTIME - $begun | . * 1000 | round / 1000")}")
        serve "s$number.1" roll --work 2ms --concurrency 16
        sleep 1
    done
    # Calls that ended before the roll did would say nothing of its end.
    for number in "${callers[@]}"; do kill -0 "$number" 2>/dev/null || covered=false; done
    for number in "${callers[@]}"; do
        wait "$number"
        codes+=($?)
    done
    stop "${pids[@]}"
    line=$(jq -cn --arg carrier "$carrier" --argjson covered $covered \
        --argjson ends "[$(IFS=,; echo "${ends[*]}")]" --argjson exits "[$(IFS=,; echo "${codes[*]}")]" \
        --slurpfile calls <(grep -h '"summary"' "$WORK"/calls?) \
        --slurpfile servers <(grep -h '"summary"' "$WORK"/s?.?) \
        --slurpfile whys <(grep -h '"outcome"' "$WORK"/calls? | grep -v '"accepted"' | head -n 5) '
        {case: "rolling", carrier: $carrier, covered: $covered, exits: $exits,
         clients: ($calls | map({by_outcome, failed, per_s: (.messages_per_s | round),
            p99: .latency_s.p99, max: .latency_s.max})),
         ends: $ends, handled: ($servers | map(.messages)), whys: ($whys | map("\(.outcome): \(.why)"))}')
    echo "$line"
    check_json "rolling restart, $carrier: no call fails" "$line" \
        ".exits == [0, 0] and ([.clients[].by_outcome] == [{accepted: $calls}, {accepted: $calls}])"
    check_json "rolling restart, $carrier: under load to its end, at every server, old and new" "$line" \
        ".covered and (.clients | all(.per_s >= 0.9 * $pace))
            and (.handled | length == 6 and all(. > 0))"
    check_json "rolling restart, $carrier: every server ends in order" "$line" '.ends | all(.exit == 0)'
}

for carrier in $carriers; do kills "$carrier"; done
for carrier in persistent ephemeral; do rolling "$carrier"; done
"$CASTNET" lab down
finish
