#!/usr/bin/env bash
# Twenty-four servers on eight hosts that know each other from the file, from beacons, from seeds, from a
# Redis store, and from several of these. Under a steady load of calls UDP is lost on every host, and the
# store is killed and comes back empty: no call fails, nobody is forgotten. A newcomer is found, a killed one
# missed and one that ends heard: with seeds in the middle of the outage, else behind it. With --quick all
# sources together, on twelve servers and four hosts.
# Calm: it waits more than it works.
source "$(dirname "$0")/lib.sh" "$@"
in_lab

cases=(static beacons seeds redis "beacons seeds" "beacons redis" "static beacons seeds redis")
rate=100 calm=4 outage=14 servers=24 hosts=8 port=7500
if ((QUICK)); then
    cases=("static beacons seeds redis")
    calm=2 outage=6 servers=12 hosts=4
fi
count=$((rate * (calm * 2 + outage)))
if ! command -v redis-server >/dev/null; then
    skip "all: no redis-server"
    finish
fi

host_of() { echo "h$(($1 % hosts + 1))"; }
fact() { jq -r "select(.host == \"$1\").$2" "$WORK/hosts"; }
now() { date +%s.%N; }
members() { "$CASTNET" members --admin "unix:$WORK/$1.admin" --json; }

# configure SOURCE…: the same file for everybody.
configure() {
    local number beacon=off
    [[ " $* " == *" beacons "* ]] && beacon='{group: 239.192.0.1, port: 7401}'
    cat >"$WORK/sources.yaml" <<YAML
node:      {interface: eth0, cluster: sources}
channels:  {group: {group: 239.192.9.11, port: 7690}}
policies:
  - {match: "**", kinds: [fanout], carrier: multicast, channel: group, fallback: unicast}
  - {match: "**", carrier: persistent}
directory:
  beacon: $beacon
YAML
    if [[ " $* " == *" seeds "* ]]; then
        echo "  seeds: [\"$(fact h1 address):$((port + 8))\", \"$(fact h2 address):$((port + 1))\"]"
    fi >>"$WORK/sources.yaml"
    if [[ " $* " == *" redis "* ]]; then
        echo "  redis: {url: \"redis://$(fact h$hosts address):6399\", ttl: 3s}"
    fi >>"$WORK/sources.yaml"
    [[ " $* " == *" static "* ]] || return 0
    echo "  static:"
    for ((number = 1; number <= servers; number++)); do
        echo "    - {node: n$number, address: \"$(fact "$(host_of $number)" address):$((port + number))\"," \
            "topics: [work]}"
    done
} >>"$WORK/sources.yaml"

# serve NUMBER TOPIC: a server; its process is the last of `pids`.
serve() {
    : >"$WORK/n$1"
    start "$(host_of "$1")" "n$1" "$CASTNET" serve "$WORK/sources.yaml" "$2" --name "n$1" --json \
        --log-level warning --set "node.listen=0.0.0.0:$((port + $1))" \
        --set "admin.listen=unix:$WORK/n$1.admin"
    started[n$1]=${pids[-1]}
}
store() {
    start h$hosts store redis-server --port 6399 --bind 0.0.0.0 --protected-mode no --save '' \
        --appendonly no --dir "$WORK"
    store=${pids[-1]}
    unset 'pids[-1]'
}
# process PID: the innermost of the commands that were started with it.
process() {
    local pid=$1 child
    while child=$(pgrep -P "$pid" | tail -n 1) && [ -n "$child" ]; do pid=$child; done
    echo "$pid"
}
knows() { members n1 | jq -se "any(.node == \"$1\" and .state == \"$2\")" >/dev/null; }
call() {
    on h1 "$CASTNET" send "$WORK/sources.yaml" "$1" --kind call --name "$2" --json --log-level error \
        "${@:3}"
}

# newcomer: starts a server; `found` is when it was called and, once it is killed, `missed` when that shows.
newcomer() {
    serve 25 late
    eventually 20 "grep -q '\"ready\"' $WORK/n25" || fail "$name: the newcomer is not ready"
    at=$(now)
    call late visitor --members 1 --count 1 >"$WORK/late" || fail "$name: the newcomer is not called"
    found=$(jq -n "$(now) - $at")
    eventually 5 "knows n25 alive" || fail "$name: the newcomer is not known"
    kill -KILL "$(process "${started[n25]}")"
    at=$(now)
    eventually 20 "knows n25 dead || knows n25 left" || fail "$name: the killed one is not missed"
    missed=$(jq -n "$(now) - $at")
}

# outage: no datagram arrives anywhere for a while, as long as `faults` run, and the store is killed.
outage() {
    local number
    for ((number = 1; number <= hosts; number++)); do
        "$CASTNET" lab fault "h$number" drop 100% udp --for "${outage}s" >/dev/null &
        faults+=($!)
    done
    [ -n "$store" ] || return 0
    kill -KILL "$(process "$store")"
    wait "$store" 2>/dev/null
}
store_back() {
    store
    eventually 20 "on h$hosts redis-cli -p 6399 EXISTS castnet:sources:node:n1 | grep -q 1" ||
        fail "$name: the store is not filled again"
}

# case_of SOURCE…
case_of() {
    local -A started=()
    local name="$*" pids=() store='' number caller line at faults=() found=null missed=null left=null
    rm -f "$WORK"/n* "$WORK/calls"
    "$CASTNET" lab down 2>/dev/null
    "$CASTNET" lab up --hosts $hosts --json >"$WORK/hosts" || { fail "no lab"; finish; }
    # A second interface that nobody reaches: its address is told to nobody.
    {
        ip -n "$(fact h1 netns)" link add other0 type veth peer name other1
        ip -n "$(fact h1 netns)" addr add 10.99.0.1/24 dev other0
        ip -n "$(fact h1 netns)" link set other1 up
        ip -n "$(fact h1 netns)" link set other0 up
    } || fail "$name: no second interface"
    configure "$@"
    [[ " $name " == *" redis "* ]] && store
    for ((number = 1; number <= servers; number++)); do serve $number work; done
    for ((number = 1; number <= servers; number++)); do
        eventually 30 "grep -q '\"ready\"' $WORK/n$number" || fail "$name: n$number is not ready"
    done
    call work caller --members $servers --members-timeout 20s --rate $rate --count $count \
        >"$WORK/calls" 2>"$WORK/calls.log" &
    caller=$!
    sleep $calm
    outage
    if [[ " $name " == *" seeds "* ]]; then newcomer; fi
    for number in "${faults[@]}"; do wait "$number" || fail "$name: no fault"; done
    [ -n "$store" ] && store_back
    wait $caller
    for ((number = 1; number <= servers; number++)); do members n$number | jq -cs .; done >"$WORK/views"
    # Nobody tells of whom only the file knows.
    if [ "$name" != static ]; then
        [ "$found" != null ] || newcomer
        kill -TERM "$(process "${started[n$((servers - 1))]}")"
        at=$(now)
        eventually 20 "knows n$((servers - 1)) left" || fail "$name: no end is heard"
        left=$(jq -n "$(now) - $at")
    fi
    stop "${pids[@]}" $store
    line=$(jq -cs --slurpfile calls <(jq -c 'select(.event == "summary")' "$WORK/calls") \
        --arg sources "$name" --argjson found "$found" --argjson missed "$missed" --argjson left "$left" \
        --argjson warned "$(grep -c '"level":"warning"\| warning ' "$WORK/n1.log")" '
        def tally: group_by(.) | map({key: .[0], value: length}) | from_entries;
        map(map(select(.source != "own" and (.node | test("^n[0-9]+$") and . != "n25")))) as $views
        | {sources: $sources, calls: $calls[0].sent, failed: $calls[0].failed,
           p99_s: $calls[0].latency_s.p99, slowest_s: $calls[0].latency_s.max, found_s: $found,
           missed_s: $missed, left_s: $left, warnings: $warned,
           alive_min: ($views | map(map(select(.state == "alive")) | length) | min),
           whole: [$views[][] | select((.incarnation | length > 0) and .age_s >= 0
               and (.topics | index("work")) and (.address | startswith("10.77.")))] | length,
           from: [$views[][].source] | tally,
           paths: [$views[][].paths[] | "\(.path) \(.why)"] | tally}' "$WORK/views")
    echo "$line"
    check_json "$name: no call fails" "$line" ".failed == 0 and .calls == $count"
    check_json "$name: no call takes a second" "$line" '.slowest_s < 1'
    check_json "$name: everybody knows everybody, at addresses that can be reached" "$line" \
        ".alive_min == $servers - 1 and .whole == $servers * ($servers - 1)"
    [ "$name" = static ] && return
    check_json "$name: a newcomer is called within 2 s" "$line" '.found_s <= 2'
    check_json "$name: a killed one is missed within 6 s" "$line" '.missed_s <= 6'
    check_json "$name: an end is heard within a second" "$line" '.left_s <= 1'
}

for case in "${cases[@]}"; do
    # The sources of one case are its words.
    # shellcheck disable=SC2086
    case_of $case
done
"$CASTNET" lab down
finish
