#!/usr/bin/env bash
# A peer that is killed, stopped, unplugged, cut off, or killed while it is cut off: who is left ends the link
# within three heartbeat intervals. Every call ends in exactly one outcome, whoever fails says why, and every
# link that was opened is accounted for. Where packets are only lost, no link ends, and none ends when all are
# for more than half of the time it takes to notice.
# Each case has two hosts and a cluster of its own, so that several run at the same time.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

# The deadline outlasts a fault and the way back.
heartbeat=1 hold=4.5 deadline=15 losing=20 warm=400
((QUICK)) && deadline=9 losing=8
up=$("$CASTNET" lab up --hosts 14 --json) || { fail "no lab"; finish; }
address() { jq -r "select(.host == \"$1\").address" <<<"$up"; }
now() { date +%s.%N; }
outcomes() { grep -s '"outcome"' "$WORK/$1.client" | wc -l; }
page() { "$CASTNET" status --admin "unix:$WORK/$1.$2.admin" --json 2>/dev/null; }
# standing CASE ROLE: how many links with heartbeats a node has.
standing() { page "$1" "$2" | jq '[.links[] | select(.open and .carrier == "persistent")] | length'; }

# configure CASE DIRECTORY ADDRESS: with a static directory nothing but the link can notice.
configure() {
    local directory='beacon: {interval: 1s}' role
    [ "$2" = static ] &&
        directory="beacon: off, static: [{node: server, address: \"$3:7400\", topics: [echo]}]"
    for role in client server; do
        cat >"$WORK/$1.$role.yaml" <<YAML
node:      {interface: eth0, cluster: $1}
directory: {${directory}}
policies:  [{match: "**", carrier: persistent, heartbeat: ${heartbeat}s}]
admin:     {listen: "unix:$WORK/$1.$role.admin"}
YAML
    done
    [ "$2" = beacon ] || sed -i 's/, static.*/}/' "$WORK/$1.server.yaml"
}

# begin CASE HOST_OF_CLIENT HOST_OF_SERVER COUNT WORK: both ends, and some calls already answered; sets how
# many links stand. The counters come twenty times a second: they say when a link ended.
begin() {
    start "$3" "$1.server" "$CASTNET" serve "$WORK/$1.server.yaml" echo --name server --listen 0.0.0.0:7400 \
        --reply echo --work "$5" --stats 50ms --json --log-level error
    eventually 20 "grep -q '\"ready\"' $WORK/$1.server" || return
    start "$2" "$1.client" bash -c 'echo $$ >"$0" && exec "$@"' "$WORK/$1.pid" "$CASTNET" send \
        "$WORK/$1.client.yaml" echo --kind call --name client --count "$4" --rate 200 --in-flight 128 \
        --size 64 --deadline "${deadline}s" --list --stats 50ms --stay 6s --json --log-level error
    eventually 20 "[ \$(outcomes $1) -ge $((warm / 2)) ]" || return
    clients=$(standing "$1" client) servers=$(standing "$1" server)
    eventually 20 "[ \$(outcomes $1) -ge $warm ]"
}

# strike FAULT PID HOST: sets `at`, the first moment when the peer is surely silent.
strike() {
    case $1 in
        kill*) kill -KILL "$2" ;;
        stop) kill -STOP "$2" ;;
        link-down) "$CASTNET" lab fault "$3" link down ;;
        silent-drop) "$CASTNET" lab fault "$3" blackout ;;
        # Bytes that it has not read make the kernel forget the connection at once: it says so into the
        # blackout, and never again.
        half-open) kill -STOP "$2" ;;
    esac
    at=$(now)
    [ "$1" = half-open ] || return 0
    sleep 0.1
    "$CASTNET" lab fault "$3" blackout && kill -KILL "$2"
}

heal() {
    case $1 in
        stop) kill -CONT "$2" ;;
        link-down) "$CASTNET" lab fault "$3" link up ;;
        silent-drop | half-open) "$CASTNET" lab fault "$3" clear ;;
    esac
}

# accounted CASE ROLE: the node's own page once its links are at rest: opened are those closed and those open.
accounted() {
    local try page line
    for try in {1..30}; do
        page=$(page "$1" "$2") || break
        line=$(jq -c '.counters as $c
            | {opened: ($c["link.opened"] + $c["link.accepted"]), open: ([.links[] | select(.open)] | length),
               closed: ($c | with_entries(select((.key | startswith("link.closed.")) and .value > 0)
                   | .key |= ltrimstr("link.closed.")))}
            | .unexplained = .opened - .open - ([.closed[]] | add // 0)' <<<"$page")
        [ "$(jq .unexplained <<<"$line")" = 0 ] && break
        sleep 0.1
    done
    echo "${line:-null}"
}

# noticed CASE ROLE AT STANDING: seconds from the fault to the end of the last of these links; null: never.
noticed() {
    jq -n --argjson at "$3" --argjson standing "$4" '
        def ended: .counters | with_entries(select(.key | startswith("link.closed."))) | [.[]] | add // 0;
        [inputs | select(.event == "stats") | {at_s, ended: ended}] as $stats
        | ([$stats[] | select(.at_s < $at).ended] | max // 0) as $before
        | {standing: $standing, ended_before: $before, noticed_s:
            ([$stats[] | select(.at_s >= $at and .ended >= $before + $standing).at_s - $at] | min)}
        ' <(grep '"stats"' "$WORK/$1.$2" | grep '}$')
}

# calls CASE HEALED: what became of the calls; `accepted_after` are those answered after the healing.
calls() {
    grep '}$' "$WORK/$1.client" | jq -cn --argjson healed "$2" '
        [inputs | select(.event == "sent" or .event == "outcome")] as $lines
        | [$lines[] | select(.event == "outcome")] as $ends
        | {sent: ([$lines[] | select(.event == "sent")] | length), ended: ($ends | length),
           twice: (($ends | length) - ([$ends[].id] | unique | length)),
           silent: ([$ends[] | select(.outcome != "accepted" and (.why // "") == "")] | length),
           accepted_after: ([$lines[] | select(.event == "sent" and .at_s > $healed
               and (.id | startswith("none-") | not))] | length),
           by_outcome: ($ends | group_by(.outcome) | map({key: .[0].outcome, value: length}) | from_entries)}'
}

# run CASE PAIR FAULT SIDE DIRECTORY: writes one line of JSON about a peer that fails at SIDE.
run() {
    local name=$1 pids=() count=$((warm + 120)) pace=0s near="h$((2 * $2 - 1))" far="h$((2 * $2))"
    local pid host at healed clients servers
    # The way back is worth seeing only where there is one.
    case $3 in stop | link-down | silent-drop) count=$((warm + 2000)) ;; kill-busy) pace=100ms ;; esac
    configure "$name" "$5" "$(address "$far")"
    if ! begin "$name" "$near" "$far" "$count" "$pace"; then
        tail -n 2 "$WORK/$name".{server,client}{,.log} >"$WORK/$name.line" 2>&1
        return
    fi
    pid=$(jq -r 'select(.event == "ready").pid' "$WORK/$name.server") host=$far
    [ "$4" = client ] && pid=$(<"$WORK/$name.pid") host=$near
    strike "$3" "$pid" "$host"
    case $3 in kill*) ;; half-open) sleep 0.5 ;; *) sleep "$hold" ;; esac
    heal "$3" "$pid" "$host"
    healed=$(now)
    case $3:$4 in
        kill*:client | half-open:client) sleep "$hold" ;;
        *) eventually 50 "[ \$(outcomes $name) -ge $count ]" ;;
    esac
    # Calls may end before the last link does.
    eventually 10 'jq -en "$(now) - $at > 3.5 * $heartbeat" >/dev/null'
    jq -cn --arg fault "$3" --arg side "$4" --arg directory "$5" --argjson count "$count" \
        --argjson client "$(noticed "$name" client "$at" "$clients")" \
        --argjson server "$(noticed "$name" server "$at" "$servers")" \
        --argjson client_links "$(accounted "$name" client)" \
        --argjson server_links "$(accounted "$name" server)" --argjson calls "$(calls "$name" "$healed")" '
        {fault: $fault, side: $side, directory: $directory, count: $count,
         client: ($client + $client_links), server: ($server + $server_links)} + $calls' >"$WORK/$name.line"
    stop "${pids[@]}"
}

# lossy HOST: one packet in twenty is lost on its way, either way.
lossy() { "$CASTNET" lab fault "$1" drop 5% all both; }
# hiccups HOST: nothing passes for more than half of the time after which a link ends, time and again.
hiccups() {
    local time
    for ((time = 0; time < losing / 6; time++)); do
        "$CASTNET" lab fault "$1" blackout
        sleep 1.6
        "$CASTNET" lab fault "$1" clear
        sleep 4
    done
}

# only_lost CASE PAIR DIRECTORY LOSS: nothing fails; packets are lost.
only_lost() {
    local name=$1 pids=() count=$((warm + 200 * losing)) near="h$((2 * $2 - 1))" far="h$((2 * $2))"
    local at clients servers
    configure "$name" "$3" "$(address "$far")"
    begin "$name" "$near" "$far" "$count" 0s
    "$4" "$far"
    eventually 50 "[ \$(outcomes $name) -ge $count ]"
    at=$(now)
    jq -cn --arg fault "$4" --arg directory "$3" --argjson count "$count" \
        --argjson client "$(accounted "$name" client)" \
        --argjson server "$(accounted "$name" server)" --argjson calls "$(calls "$name" "$at")" '
        {fault: $fault, directory: $directory, count: $count, client: $client, server: $server} + $calls
        ' >"$WORK/$name.line"
    stop "${pids[@]}"
    "$CASTNET" lab fault "$far" clear
}

# judge CASE FAULT SIDE
judge() {
    local line what="$2 at the $3" watchers='[.client]'
    line=$(cat "$WORK/$1.line")
    echo "$line"
    what+=" ($(jq -r .directory <<<"$line" 2>/dev/null))"
    # A cut is seen from both ends, a process that fails only from the other one.
    case $2:$3 in
        link-down:* | silent-drop:*) watchers='[.client, .server]' ;;
        *:client) watchers='[.server]' ;;
    esac
    # A tenth is for the counters' pace, the rest for a busy machine.
    check_json "$what: noticed within three intervals" "$line" \
        "$watchers | all(.standing >= 1 and .ended_before == 0 and .noticed_s != null
            and .noticed_s <= 3 * $heartbeat + 0.3)"
    # A killed node has no page, and its links ended with it.
    check_json "$what: every link is accounted for" "$line" \
        "$watchers | all(.unexplained == 0 and .opened >= 1 and (.closed | length) >= 1)"
    case $2:$3 in kill*:client | half-open:client) return ;; esac
    check_json "$what: every call ends once, and who fails says why" "$line" \
        ".sent == .count and .ended == .count and .twice == 0 and .silent == 0"
    case $2 in kill* | half-open) return ;; esac
    check_json "$what: goes on once healed" "$line" '.accepted_after > 0'
}

# together SIDE DIRECTORY FAULT…: these cases at the same time, a pair of hosts each.
together() {
    local side=$1 directory=$2 fault pair=0 running=() name line
    for fault in "${@:3}"; do
        name="$fault-$side-$directory"
        ((pair += 1))
        # The shell tells of the processes that are killed here.
        run "$name" "$pair" "$fault" "$side" "$directory" 2>"$WORK/$name.err" &
        running+=($!)
    done
    for fault in "${losses[@]}"; do
        [ "$side" = server ] || break
        ((pair += 1))
        only_lost "$fault-$directory" "$pair" "$directory" "$fault" 2>"$WORK/$fault-$directory.err" &
        running+=($!)
    done
    wait "${running[@]}"
    for fault in "${@:3}"; do judge "$fault-$side-$directory" "$fault" "$side"; done
    for fault in "${losses[@]}"; do
        [ "$side" = server ] || break
        line=$(cat "$WORK/$fault-$directory.line")
        echo "$line"
        check_json "only $fault ($directory): no link ends, every call is answered" "$line" \
            '([.client, .server] | all(.opened >= 1 and .open == .opened and .closed == {}))
                and .by_outcome == {accepted: .count} and .twice == 0'
    done
}

# Linux sends lost packets again often enough for that since 6.15.
losses=(lossy)
if [ "$(printf '%s\n' 6.15 "$(uname -r)" | sort -V | head -n 1)" = 6.15 ]; then
    losses+=(hiccups)
else
    skip "hiccups: $(uname -r) is older than Linux 6.15"
fi
faults=(kill-busy stop link-down silent-drop half-open)
together server static "${faults[@]}"
if ! ((QUICK)); then
    together client static kill "${faults[@]:1}"
    together server beacon kill "${faults[@]:1}"
    together client beacon "${faults[@]}"
fi
"$CASTNET" lab down
finish
