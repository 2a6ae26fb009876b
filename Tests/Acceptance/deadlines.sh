#!/usr/bin/env bash
# A call with a deadline of 5 s never takes longer than 5.2 s, whatever is down: there is no server, it is
# killed, stopped, cut off or silent on one side, it restarts all the time, its handlers are stuck, its wire
# is too slow, or it or the caller has no descriptor left. And whoever sends the calls comes to its end.
#
# A run is one fault, one carrier and one directory: with `static` nothing but the link can notice. Each has
# three hosts and a cluster of its own; several go on at a time. A line of figures a run.
source "$(dirname "$0")/lib.sh" "$@"
if ! command -v python3 >/dev/null || ! command -v prlimit >/dev/null; then
    skip "all: no python3 or no prlimit"
    finish
fi
in_lab

deadline=5 most=5.2 rate=200 flight=64 workers=10
# Calls that are answered before the fault, and those behind them: each `flight` of them may take a deadline.
# `steady`: where calls are answered all the time, more or less.
warm=200 behind=192 steady=1200 restarts=1600
((QUICK)) && warm=100 behind=128 steady=600 restarts=800 workers=8
up=$("$CASTNET" lab up --hosts $((3 * workers)) --json) || { fail "no lab"; finish; }
address() { jq -r "select(.host == \"$1\").address" <<<"$up"; }
outcomes() { grep -s '"outcome"' "$WORK/$name.client" | wc -l; }

# What follows works on the run of `run`: its name, fault, carrier, hosts, pids.

# configure: a connection for every message, where descriptors are to become few.
configure() {
    local known="{beacon: {interval: 1s}}" route="carrier: $carrier" at
    at=$(address "$server"):7400
    [ "$directory" = static ] &&
        known="{beacon: off, static: [{node: server, address: \"$at\", topics: [echo]}]}"
    case $carrier:$fault in ephemeral:*limit | ephemeral:*emfile) route+=", share: false, linger: 0s" ;; esac
    printf '%s\n' "node: {interface: eth0, cluster: $name}" "directory: $known" \
        "policies: [{match: \"**\", $route}]" >"$WORK/$name.yaml"
    sed 's/, static:.*/}/' "$WORK/$name.yaml" >"$WORK/$name.server.yaml"
}

# serve OPTION…: a server, started under the words of `under`; sets `serving`, its process.
serve() {
    ((starts += 1))
    start "$server" "$name.server$starts" "${under[@]}" "$CASTNET" serve "$WORK/$name.server.yaml" echo \
        --name server --listen 0.0.0.0:7400 --stats 250ms --json --log-level error "$@"
    eventually 20 "grep -q '\"ready\"' $WORK/$name.server$starts" || return
    serving=$(jq -r 'select(.event == "ready").pid' "$WORK/$name.server$starts")
}

# call COUNT OPTION…: the calls, under the words of `under`; sets `calling`, their process.
call() {
    count=$1
    start "$client" "$name.client" bash -c 'echo $$ >"$0" && exec "$@"' "$WORK/$name.pid" "${under[@]}" \
        "$CASTNET" send "$WORK/$name.yaml" echo --kind call --name client --listen 0.0.0.0:7400 \
        --count "$count" --rate $rate --in-flight $flight --deadline ${deadline}s --list --json \
        --log-level error "${@:2}"
    sender=${pids[-1]} begun=$EPOCHREALTIME
    eventually 10 "[ -s $WORK/$name.pid ]" && calling=$(<"$WORK/$name.pid")
}

# answered: so many calls that the fault comes into the middle.
answered() { eventually 30 "[ \$(outcomes) -ge $warm ]"; }
# serve_and_call OPTION…: both ends, until the fault may come.
serve_and_call() {
    serve --reply echo && call $((warm + behind)) "$@" && answered
}
# starve PID: not one descriptor more, whatever it closes.
starve() { prlimit --pid "$1" --nofile=8; }
# crowd PID ADDRESS: silent connections at the listener of a process, as long as a run lasts.
crowd() {
    # 7400 in state LISTEN.
    eventually 10 "grep -qE ':1CE8 [0-9A-F:]+ 0A' /proc/$1/net/tcp" || return
    start "$others" "$name.crowd" python3 "$ROOT/Tests/Acceptance/storm.py" flood "$2:7400" --count 1500 \
        --rate 100 --hold 8 --only silent
    # More than there may be.
    sleep 1.5
}

# fault_NAME: brings the calls and the fault together.
fault_none() { call "$behind"; }
fault_killed() { serve_and_call && kill -KILL "$serving"; }
fault_stopped() { serve_and_call && kill -STOP "$serving"; }
fault_stopped-before() { serve --reply echo && kill -STOP "$serving" && call "$behind"; }
fault_blackout() { serve_and_call && "$CASTNET" lab fault "$server" blackout; }
fault_link-down() { serve_and_call && "$CASTNET" lab fault "$server" link down; }
# Its beacons still say that it is there.
fault_silent-drop() { serve_and_call && "$CASTNET" lab fault "$server" drop 100% tcp both; }
fault_deaf() { serve_and_call && "$CASTNET" lab fault "$server" drop 100% all in; }
fault_stuck() { serve --reply echo --work 10min && call "$behind"; }
# A mebibyte takes eight seconds.
fault_slow-wire() {
    serve --reply echo && "$CASTNET" lab fault "$server" rate 1Mbit/s && call $((2 * flight)) --size 1MiB
}
fault_restarting() {
    call "$restarts"
    while kill -0 "$sender" 2>/dev/null; do
        ((starts += 1))
        timeout --signal=KILL 0.7 "$CASTNET" lab exec "$server" -- "$CASTNET" serve \
            "$WORK/$name.server.yaml" echo --name server --listen 0.0.0.0:7400 --reply echo --json \
            --log-level error >"$WORK/$name.server$starts" 2>"$WORK/$name.server$starts.log"
    done
}
# Its own listener takes the descriptors before there is anybody to dial.
fault_client-limit() {
    under=(prlimit --nofile=40)
    call "$steady"
    crowd "$calling" "$(address "$client")"
    under=()
    serve --reply echo --work 20ms
}
# Without a link, and with nothing to open one.
fault_client-emfile() {
    serve_and_call
    starve "$calling" && kill -KILL "$serving" && serve --reply echo
}
fault_server-limit() {
    under=(prlimit --nofile=64)
    serve --reply echo --work 20ms && crowd "$serving" "$(address "$server")"
    under=()
    call "$steady"
}
fault_server-emfile() { serve --reply echo && starve "$serving" && call "$behind"; }

# hits FILE…: how often these came to a limit of descriptors or connections, by their last counters.
hits() {
    local file
    for file in "$@"; do grep -sh '"counters"' "$file" | grep '}$' | tail -n 1; done |
        jq -n '[inputs.counters | to_entries[] | select(.key == "link.descriptors.short"
            or .key == "link.accepts.paused" or (.key | test("^limit[.](connections|per-|dials)"))).value]
            | add // 0'
}

# figures CODE SECONDS: the line of a run.
figures() {
    grep -s '}$' "$WORK/$name.client" | jq -cn --arg fault "$fault" --arg carrier "$carrier" \
        --arg directory "$directory" --argjson calls "$count" --argjson code "$1" --argjson seconds "$2" \
        --argjson starts "$starts" --argjson hits "$(hits "$WORK/$name.client" "$WORK/$name".server?)" '
        def round3: if . == null then null else . * 1000 | round / 1000 end;
        [inputs] as $lines | [$lines[] | select(.event == "outcome")] as $ends
        | {fault: $fault, carrier: $carrier, directory: $directory, calls: $calls,
           sent: ([$lines[] | select(.event == "sent")] | length), ended: ($ends | length),
           twice: (($ends | length) - ([$ends[].id] | unique | length)),
           by_outcome: ($ends | group_by(.outcome) | map({key: .[0].outcome, value: length}) | from_entries),
           latency_max_s: ([$ends[].latency_s] | max | round3),
           late: ([$ends[] | select(.latency_s > '$most')] | length),
           summary: ([$lines[] | select(.event == "summary").by_outcome][0]),
           exit: $code, seconds: ($seconds | round3), server_starts: $starts, limit_hits: $hits}'
}

# run SLOT FAULT CARRIER DIRECTORY: leaves a line in $WORK/NAME.line.
run() {
    local slot=$1 fault=$2 carrier=$3 directory=$4 name="$2-$3-$4"
    local client="h$((3 * slot - 2))" server="h$((3 * slot - 1))" others="h$((3 * slot))"
    local pids=() under=() starts=0 count=0 serving= calling= sender= begun=$EPOCHREALTIME code=null ended
    configure
    "fault_$fault"
    if [ -n "$sender" ]; then
        wait "$sender"
        code=$?
    fi
    ended=$EPOCHREALTIME
    figures "$code" "$(jq -n "$ended - $begun")" >"$WORK/$name.line"
    # Not asked: it may be stopped or stuck.
    [ -n "$serving" ] && kill -KILL "$serving" 2>/dev/null
    stop "${pids[@]}"
    "$CASTNET" lab fault "$server" clear
}

# bites FAULT: what shows that the fault was there while calls were on their way.
bites() {
    case $1 in
        none | stuck) echo '.by_outcome == {expired: .calls}' ;;
        stopped-before) echo '.by_outcome.accepted == null and .latency_max_s >= 4.9' ;;
        slow-wire) echo '.by_outcome.accepted == null and .latency_max_s >= 4.9' ;;
        restarting) echo '.server_starts >= 4 and .by_outcome.accepted > 0' ;;
        *-limit) echo '.limit_hits > 0 and .by_outcome.accepted > 0' ;;
        # It rests 50 ms each time, where it could spin.
        server-emfile) echo '.by_outcome.expired > 0 and .limit_hits > 0 and .limit_hits <= 40 * .seconds' ;;
        # With beacons, what is on its way when the directory finds the server dead is lost.
        *) echo ".by_outcome.accepted >= $warm and .by_outcome.expired > 0
            and .by_outcome.expired + .by_outcome.lost >= 32" ;;
    esac
}

judge() {
    local name="$1-$2-$3" line
    line=$(cat "$WORK/$name.line" 2>/dev/null)
    echo "${line:-$(tail -n 3 "$WORK/$name"{.err,.client.log,.server1.log} 2>&1)}"
    check_json "$name: no call takes longer than $most s" "$line" '.latency_max_s != null and .late == 0'
    check_json "$name: every call ends once" "$line" \
        '.calls > 0 and .sent == .calls and .ended == .calls and .twice == 0 and .summary == .by_outcome'
    check_json "$name: the caller comes to its end" "$line" \
        "(.exit == 0 or .exit == 1)
            and .seconds <= .calls / $rate + (.calls / $flight | ceil) * $most + 5"
    check_json "$name: the fault was there" "$line" "$(bites "$1")"
}

# worker SLOT: every so manyth of the runs, one behind the other.
worker() {
    local index
    for ((index = $1 - 1; index < ${#runs[@]}; index += workers)); do
        # The shell tells of the processes that are killed here.
        run "$1" ${runs[index]} 2>"$WORK/$(tr ' ' - <<<"${runs[index]}").err"
    done
}

faults=(none killed stopped blackout link-down silent-drop deaf stuck slow-wire restarting client-limit
    client-emfile server-limit server-emfile)
runs=()
carriers=(persistent ephemeral)
for index in "${!faults[@]}"; do
    if ((QUICK)); then
        # In turns, so that each carrier meets half of them.
        runs+=("${faults[index]} ${carriers[index % 2]} beacon")
    else
        runs+=("${faults[index]} persistent beacon" "${faults[index]} ephemeral beacon")
    fi
done
runs+=("stopped-before persistent static" "killed ephemeral static")
((QUICK)) || runs+=("stopped-before ephemeral static" "killed persistent static"
    "stopped persistent static" "stopped ephemeral static" "blackout persistent static"
    "blackout ephemeral static" "link-down persistent static" "link-down ephemeral static")
python3 "$ROOT/Tests/Acceptance/outcomes.py" stalls "$WORK/stalled" &
stalls=$!
working=()
for ((slot = 1; slot <= workers; slot++)); do
    worker "$slot" &
    working+=($!)
done
wait "${working[@]}"
stop $stalls
for run in "${runs[@]}"; do judge $run; done
# `stalled_s`: how long a process waited for the processor; on a busy machine that is late, too.
jq -cs --argjson stalled "$(cat "$WORK/stalled")" '{runs: length, calls: (map(.calls) | add),
    late: (map(.late) | add), latency_max_s: (map(.latency_max_s) | max), stalled_s: $stalled}' \
    "$WORK"/*.line
"$CASTNET" lab down
finish
