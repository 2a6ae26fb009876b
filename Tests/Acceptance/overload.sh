#!/usr/bin/env bash
# Ten clients of one server, one of which floods it without pause, with calls, with casts and with large
# casts: the nine others keep 90 % of their rate, none of their calls fails, and each one's 99th percentile is
# at most twice its own without the flood. The server's memory stays below 300 MB and does not grow in the
# second half. Every message of the flood has one outcome. Then a topic whose handlers are stuck, with 20,000
# casts for it: another topic of the same node goes on as before, to the same measure.
#
# Latencies of a client's first second are left out, with the flood as without: nine processes start in it.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

seconds=8 once=0
# One measure without the flood for all floods of the quick form.
((QUICK)) && seconds=4 once=1
clients=9 flooding=20000 memory=300000000
cat >"$WORK/overload.yaml" <<'YAML'
node:      {interface: eth0, cluster: overload}
policies:  [{match: "**", carrier: persistent}]
YAML
head -c 65536 /dev/urandom >"$WORK/large"
"$CASTNET" lab up --hosts 3 --json >/dev/null || { fail "no lab"; finish; }

# serve OPTIONS…: a new server; its process in `pid`.
serve() {
    rm -f "$WORK/server"
    KILL_AFTER=15 start h1 server "$CASTNET" serve "$WORK/overload.yaml" --name server --json \
        --log-level error "${settings[@]}" "$@"
    eventually 20 "grep -qs '\"ready\"' $WORK/server" || fail "the server is not up"
    pid=$(jq -r 'select(.event == "ready").pid' "$WORK/server" | head -n 1)
}

# crew NAME RATE: nine clients call `hot`, each with a line of figures in $WORK/NAME.
crew() {
    local number running=()
    for ((number = 1; number <= clients; number++)); do
        on h2 "$CASTNET" send "$WORK/overload.yaml" hot --kind call --name "client$number" --rate "$2" \
            --count $(($2 * seconds)) --in-flight 1000 --size 64 --deadline 10s --members 1 --json \
            --log-level error "${settings[@]}" >"$WORK/crew.$number" 2>>"$WORK/crew.log" &
        running+=($!)
    done
    wait "${running[@]}"
    for ((number = 1; number <= clients; number++)); do
        jq -cs --argjson first "$2" '(map(select(.event == "summary"))[0]) as $sum
            | map(select(.outcome == "accepted").latency_s)[$first:]
            | {per_s: ($sum.accepted / $sum.seconds), failed: $sum.failed, by_outcome: $sum.by_outcome,
               latencies: .}' "$WORK/crew.$number"
    done >"$WORK/$1"
}

# compare CALM STRESSED: the worst of each client's ratios, and the 99th percentiles of all calls together.
compare() {
    jq -cn --slurpfile calm "$WORK/$1" --slurpfile stressed "$WORK/$2" '
        def p99: sort | .[length * 99 / 100 | floor];
        def median: sort | .[length / 2 | floor];
        def hundredths: . * 100 | round / 100;
        def ms: . * 1e5 | round / 100;
        [range($calm | length) as $one | {rate: ($stressed[$one].per_s / $calm[$one].per_s),
            p99: (($stressed[$one].latencies | p99) / ($calm[$one].latencies | p99))}] as $ratios
        | {clients: [$calm, $stressed | map(select(.latencies | length > 0)) | length],
           failed: [$calm, $stressed | map(.failed) | add],
           rate_worst: ($ratios | map(.rate) | min | hundredths),
           p99_worst: ($ratios | map(.p99) | max | hundredths),
           p99_median: ($ratios | map(.p99) | median | hundredths),
           p99_together: (($stressed | map(.latencies) | add | p99)
               / ($calm | map(.latencies) | add | p99) | hundredths),
           calm_p99_ms: [$calm[].latencies | p99 | ms],
           stressed_p99_ms: [$stressed[].latencies | p99 | ms]}'
}

# watch_memory: the server's resident bytes, ten times a second while the file `watching` exists.
watch_memory() {
    local key kib
    while [ -e "$WORK/watching" ]; do
        while read -r key kib _; do
            [ "$key" != VmRSS: ] || echo "{\"at\":$EPOCHREALTIME,\"rss\":$((kib * 1024))}"
        done <"/proc/$pid/status"
        sleep 0.1
    done 2>/dev/null >"$WORK/memory"
}
begin_watch() {
    touch "$WORK/watching"
    watch_memory &
    watcher=$!
}
# remembered: the most of each half, and the most there ever was.
remembered() {
    rm -f "$WORK/watching"
    wait "$watcher"
    jq -cs --argjson most "$(awk '/VmHWM/ {print $2 * 1024}' "/proc/$pid/status")" '
        ((.[0].at + .[-1].at) / 2) as $half
        | {rss_first_half: (map(select(.at < $half).rss) | max),
           rss_second_half: (map(select(.at >= $half).rss) | max), rss_max: $most}' "$WORK/memory"
}

# push TOPIC OPTIONS…: the tenth client, on a host of its own; its process in `pusher`. Asked to end, it waits
# until its last messages have.
push() {
    KILL_AFTER=20 start h3 pushed "$CASTNET" send "$WORK/overload.yaml" "$1" --name tenth --members 1 \
        --in-flight $flooding --set 'policies[0].backlog=100000' --json --log-level error "${settings[@]}" \
        "${@:2}"
    pusher=${pids[-1]}
}
# pushed: how its messages ended; `strange` were accepted and not handled, or handled more than once.
pushed() {
    grep '"outcome"' "$WORK/pushed" | jq -r '[.id, .outcome] | @tsv' >"$WORK/ended"
    grep '"from":"tenth"' "$WORK/server" | grep '}$' | jq -r '[.id, "handled"] | @tsv' >"$WORK/handled"
    awk -F'\t' '
        $2 == "handled" { times[$1]++; handled++; next }
        { lines++; ends[$1]++; if ($2 == "accepted") accepted[$1] }
        END {
            for (one in accepted) if (times[one] != 1) strange++
            for (one in times) if (times[one] > 1) twice++
            printf "{\"outcomes\":%d,\"different\":%d,\"strange\":%d,\"twice\":%d,\"handled\":%d}\n",
                lines, length(ends), strange, twice, handled
        }' "$WORK/handled" "$WORK/ended" | jq -c --slurpfile summary <(grep '"summary"' "$WORK/pushed") '
            . + {sent: $summary[0].sent, by_outcome: $summary[0].by_outcome, seconds: $summary[0].seconds}'
}

# report NAME CALM: one line about the case that has just been measured.
report() {
    line=$(jq -cn --arg case "$1" --argjson compared "$(compare "$2" stressed)" \
        --argjson memory "$(remembered)" --argjson tenth "$3" '{case: $case} + $compared + $memory
        + {tenth: $tenth}')
    echo "$line"
}

# steady NAME: what is true of the nine, and of the server's memory, whatever the tenth does.
steady() {
    check_json "$1: the nine keep 90 % of their rate, and no call fails" "$line" \
        ".clients == [$clients, $clients] and .failed == [0, 0] and .rate_worst >= 0.9"
    check_json "$1: memory is below 300 MB" "$line" ".rss_max > 0 and .rss_max < $memory"
    # The heap keeps what it has freed, in steps of some megabytes.
    check_json "$1: memory does not grow in the second half" "$line" \
        '.rss_second_half <= 1.05 * .rss_first_half + 4e6'
}

# flood NAME CARRIER OPTIONS…: a server, the nine without and with the flood of the tenth.
flood() {
    local name="$1, $2" calm="calm-$2" pids=() settings=() pid pusher watcher
    settings=(--set "node.cluster=$1-$2" --set "policies[0].carrier=$2")
    serve hot --reply none --work 5ms --concurrency 8
    if [ ! -e "$WORK/$calm" ] || ! ((once)); then crew "$calm" 50; fi
    begin_watch
    # What is not handled within its deadline makes room for the next.
    push hot --count 100000000 --deadline 5s "${@:3}"
    eventually 20 "grep -qs '\"from\":\"tenth\"' $WORK/server" || fail "$name: no flood"
    sleep 1
    crew stressed 50
    stop "$pusher"
    report "$name" "$calm" "$(pushed)"
    stop "${pids[@]}"
    steady "$name"
    check_json "$name: each one's p99 is at most twice its own without the flood" "$line" \
        '.p99_worst > 0 and .p99_worst <= 2'
    # The handlers could do 1,600 a second, of which the nine want 450.
    check_json "$name: it is a flood, and each message of it has one outcome" "$line" \
        ".tenth | .sent >= $flooding and .handled / .seconds >= 500
            and .outcomes == .sent and .different == .sent and ([.by_outcome[]] | add) == .sent
            and .strange == 0 and .twice == 0"
}

# stuck: the handlers of one topic sleep; a shell handles the calls of the other, so there are fewer of them.
stuck() {
    local pids=() settings=() pid pusher watcher
    settings=(--set node.cluster=stuck)
    serve hot stuck --concurrency 8 --reply 'exec:[ $CASTNET_TOPIC != stuck ] || exec sleep 120'
    crew calm-stuck 20
    begin_watch
    push stuck --kind cast --count $flooding --size 64 --receipt received --deadline $((seconds + 6))s
    eventually 20 "grep -qs '\"from\":\"tenth\"' $WORK/server" || fail "nothing is stuck"
    sleep 1
    crew stressed 20
    wait "$pusher"
    report "stuck topic" calm-stuck "$(pushed)"
    # Its handlers would keep it.
    kill -KILL "$pid"
    stop "${pids[@]}"
    steady "stuck topic"
    check_json "stuck topic: the other topic's p99 is at most twice its own" "$line" \
        '.p99_together > 0 and .p99_together <= 2'
    check_json "stuck topic: eight are handled, a bounded number is taken, each has one outcome" "$line" \
        ".tenth | .handled == 8 and .sent == $flooding and .outcomes == .sent and .different == .sent
            and .by_outcome.accepted <= 10008 and (.by_outcome | keys - [\"accepted\", \"expired\"] == [])"
}

flood calls persistent --kind call --size 64
flood casts persistent --kind cast --size 64 --receipt processed
flood large-casts persistent --kind cast --file "$WORK/large" --receipt processed
((QUICK)) || flood calls ephemeral --kind call --size 64
stuck
"$CASTNET" lab down
finish
