#!/usr/bin/env bash
# Where the datagram seam has to work: an executable, one bound at once, a library that a foreign program
# loaded, beside libzmq's own PGM sockets in the same process; where it is refused, without it. And what idle
# nodes put on the wire. With --quick less of everything.
#
# The library is built into the same place as the examples, in debug mode. CASTNET_EMBEDDED names one that
# is built already.
source "$(dirname "$0")/lib.sh" "$@"
HERE=$ROOT/Tests/Acceptance
if [ -z "${CASTNET_EMBEDDED:-}" ] && [ "${CASTNET_LAB:-}" != 1 ]; then
    build=(swift build --package-path "$HERE/Embedded" --scratch-path "$ROOT/.build/examples")
    "${build[@]}" >&2 || { fail "the shared library builds"; finish; }
    CASTNET_EMBEDDED=$("${build[@]}" --show-bin-path)/libEmbedded.so
fi
export CASTNET_EMBEDDED
in_lab

messages=400 size=65536 stock=20000 seconds=30
((QUICK)) && messages=60 stock=4000 seconds=10
members=2
# Bound to 0.0.0.0, as a receiver must be, so each case has a port of its own: no case hears the one before.
port=7600
next_config() {
    ((port += 1))
    # What the case before has said.
    rm -f "$WORK"/h*
    cat >"$WORK/castnet.yaml" <<YAML
node:      {interface: eth0, cluster: seam}
channels:  {seam: {group: 239.192.9.2, port: $port}}
policies:
  - {match: "**", kinds: [fanout], carrier: multicast, channel: seam, fallback: none}
directory: {beacon: {group: 239.192.0.1, port: 7401, interval: ${1:-1s}}}
limits:    {memory: 512MiB}
YAML
}
KILL_AFTER=20
"$CASTNET" lab up --hosts 20 --json >/dev/null || { fail "no lab"; finish; }

# between_processes NAME ABSENT [VARIABLE=VALUE]: fanouts from one host to two, each a process with that
# environment; ABSENT is how many channels of each are without the seam.
between_processes() {
    local name=$1 absent=$2 host pids=() sent
    shift 2
    next_config
    for host in h2 h3; do
        start "$host" "$host" env "$@" "$CASTNET" serve "$WORK/castnet.yaml" news --join --name "$host" \
            --json --log-level warning
    done
    sent=$(on h1 env "$@" "$CASTNET" send "$WORK/castnet.yaml" news --kind fanout --name h1 --json \
        --log-level warning --size "$size" --count "$messages" --in-flight 8 --receipt received \
        --members "$members" 2>"$WORK/h1.log" | tail -n 1)
    stop "${pids[@]}"
    check_json "$name: all accepted" "$sent" ".accepted == $messages and .by_carrier.multicast == $messages"
    for host in h1 h2 h3; do
        local summary
        if [ "$host" = h1 ]; then
            summary=$sent
        else
            summary=$(tail -n 1 "$WORK/$host")
            check_json "$name: $host has everything" "$summary" \
                ".messages == $messages and .losses == 0 and .by_carrier.multicast == $messages"
        fi
        local counters='.counters | ((."seam.absent" // 0) == '$absent')'
        if ((absent == 0)); then
            counters+=' and ."seam.batches" > 0'
            check "$name: $host is silent" "[ ! -s '$WORK/$host.log' ]"
        else
            check "$name: $host warns" "grep -q 'warning.*one by one' '$WORK/$host.log'"
        fi
        check_json "$name: the seam of $host" "$summary" "$counters"
    done
    emit_json place="$name" seam_absent="$(jq '.counters."seam.absent" // 0' <<<"$sent")" \
        batches_sender="$(jq '.counters."seam.batches" // 0' <<<"$sent")" \
        batches_receiver="$(tail -n 1 "$WORK/h2" | jq '.counters."seam.batches" // 0')" \
        messages="$messages" seconds="$(jq .seconds <<<"$sent")"
}

between_processes executable 0 CASTNET_SEAM=
between_processes "bound at once" 0 LD_BIND_NOW=1
between_processes "failed self-test" 1 CASTNET_SEAM=fail-self-test
between_processes "switched off" 1 CASTNET_SEAM=off

if ! command -v python3 >/dev/null; then
    skip "inside a loaded library: no python3"
    "$CASTNET" lab down
    finish
fi

# loaded NAME COUNT PEERS [OPTION…]: two foreign programs with the library, each sending to the other. An
# option's @A and @B are this host's address and the other's port.
loaded() {
    local name=$1 host pids=()
    shift
    next_config
    for host in h1 h2; do
        local options=()
        # Each publishes where the other collects.
        if [ "${1:-}" = zmq ]; then
            local address=10.77.0.$((10 + ${host#h})) out=5601 in=5602
            [ "$host" = h2 ] && out=5602 in=5601
            options=(--publish "epgm://$address;239.192.9.$((out - 5600 + 10)):$out"
                --collect "epgm://$address;239.192.9.$((in - 5600 + 10)):$in" --messages "$stock")
        fi
        start "$host" "$host" python3 "$HERE/Embedded/embedded.py" talk "$CASTNET_EMBEDDED" \
            "$WORK/castnet.yaml" --name "$host" --peers 1 --count "$messages" --size "$size" "${options[@]}"
    done
    eventually 60 "[ -s '$WORK/h1' ] && [ -s '$WORK/h2' ]"
    stop "${pids[@]}"
    for host in h1 h2; do
        local result other=h1
        [ "$host" = h1 ] && other=h2
        result=$(cat "$WORK/$host")
        [ -n "$result" ] || tail -n 5 "$WORK/$host.log"
        check_json "$name: $host's fanouts are complete" "$result" ".complete == $messages"
        check_json "$name: $host has everything" "$result" \
            ".heard.from.$other == $messages and .heard.by.multicast == $messages and .heard.losses == 0"
        check_json "$name: the seam of $host" "$result" \
            '.counters | ((."seam.absent" // 0) == 0 and ."seam.batches" > 0)'
        if [ "${1:-}" = zmq ]; then
            check_json "$name: libzmq of $host has everything" "$result" \
                ".collected.received == $stock and .collected.foreign == 0 and .published.sent == $stock"
        fi
        emit_json place="$name" host="$host" messages="$(jq .heard.messages <<<"$result")" \
            batches="$(jq '.counters."seam.batches" // 0' <<<"$result")" \
            stock_received="$(jq '.collected.received' <<<"$result")"
    done
}

loaded "inside a library"
if why=$(python3 "$HERE/epgm.py" has 2>&1); then
    loaded "beside libzmq in one process" zmq
else
    skip "beside libzmq in one process: $why"
fi

# ---- A hundred idle nodes, five to a process and a process to a host ----

# on_bridge FILE FILTER…: packets of a capture.
on_bridge() { tcpdump -nr "$WORK/$1" "${@:2}" 2>/dev/null | wc -l; }

# quiet NAME: counts for a while what crosses the bridge; every packet once.
quiet() {
    rm -f "$WORK/idle.pcap"
    timeout "$seconds" ip netns exec castnet-bridge tcpdump -qni br0 -s 96 -w "$WORK/idle.pcap" 2>/dev/null
    local pgm
    pgm=$(on_bridge idle.pcap udp dst port "$port")
    emit_json idle="$1" nodes=100 seconds="$seconds" \
        pgm_per_s="$(jq -n "$pgm / $seconds")" \
        beacons_per_s="$(jq -n "$(on_bridge idle.pcap udp dst port 7401) / $seconds")" \
        all_per_s="$(jq -n "$(on_bridge idle.pcap) / $seconds")"
    # Beacons show that anything was captured.
    check "$1: $pgm packets of PGM in $seconds s are less than 50 a second" \
        "((pgm < 50 * seconds && $(on_bridge idle.pcap udp dst port 7401) > 0))"
}

# Each beacon is read a hundred times: at one a second two processors would do little else in debug mode.
next_config 5s
pids=()
for number in $(seq 20); do
    start "h$number" "h$number" python3 "$HERE/Embedded/embedded.py" idle "$CASTNET_EMBEDDED" \
        "$WORK/castnet.yaml" --name "h$number" --nodes 5 --peers 99 --go "$WORK/go"
done
lines() { cat "$WORK"/h? "$WORK"/h?? | grep -c "$1"; }
check "100 nodes are up" "eventually 30 '[ \$(lines ready) = 20 ]'"
# Until everybody knows everybody.
sleep 3
((QUICK)) || quiet "nodes that have sent nothing"
touch "$WORK/go"
check "each has sent to all" "eventually 60 '[ \$(lines sent) = 20 ]'"
# An idle stream says so for 5 s.
sleep 7
quiet "nodes that have sent once"
stop "${pids[@]}"
heard=$(cat "$WORK"/h? "$WORK"/h?? | jq -cs 'map(select(.event == "summary")) | {
    processes: length, min: map(.heard_min) | min, max: map(.heard_max) | max, absent: map(.absent) | add}')
check_json "every node has heard 100 messages" "$heard" '. == {processes: 20, min: 100, max: 100, absent: 0}'
"$CASTNET" lab down
finish
